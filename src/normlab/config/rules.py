"""Checks the values of a configuration by the rules that the yaml files state behind their keys: see `meanings`.

A rule binds the part whose file has the key, and no other.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from normlab.config.meanings import keys_of, option_lines, rules_of
from normlab.config.options import CONF, GLOBAL, GROUPS, SEVERAL, origins
from normlab.config.source import OURS, ConfigSource
from normlab.config.values import Rules, check_value
from normlab.errors import ConfigError, show


def check_typed(config: DictConfig, key: str, value: Any, default: Any, added: Mapping[str, Rules]) -> None:
    """Raises ConfigError where `value` fits neither the rule of `key` nor, without a rule, the type of its default.

    config: has the part that the key belongs to, or is to. added: see `added_rules`.
    """
    parent = key.rpartition(".")[0]
    target = OmegaConf.select(config, f"{parent}._target_") if parent else None
    check_value(key, value, default, added.get(key) or rule(key, target))


def check_all(config: DictConfig, added: Mapping[str, Rules] = MappingProxyType({})) -> None:
    """Raises ConfigError for a value of a configuration, wherever it came from, that breaks its rule or has none to
    stand for, as ${optimizer.lr} where the optimizer has no such key. added: see `added_rules`."""
    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        what, *more = str(error).strip().splitlines()
        where = next((line.partition(":")[2] for line in more if "full_key" in line), "")
        raise ConfigError(f"{what}{where and f', which stands in{where}'}") from error

    def look(node: Any, key: str) -> None:
        if isinstance(node, dict):
            for name, value in node.items():
                full = f"{key}.{name}" if key else str(name)
                if (rules := added.get(full) or rule(full, node.get("_target_"))) is not None:
                    check_value(full, value, value, rules)
                look(value, full)

    look(plain, "")


def added_rules(chosen: DictConfig, parsed: Iterable[Override], source: ConfigSource) -> dict[str, Rules]:
    """The rules of the chosen options that a person has in a folder beside ours, by the keys of the configuration.

    chosen: the options, by group. parsed: what was typed; a class that was typed is not that of the option.
    Raises ConfigError for brackets that hold no rule.
    """
    rules: dict[str, Rules] = {}
    if not source.added:
        return rules
    others = {override.key_or_group.partition(".")[0] for override in parsed if "._target_" in override.key_or_group}
    for group in {*GROUPS} - {*GLOBAL, *others}:
        theirs = {*source.options(group)} - {*OURS.options(group)}
        # Hydra does not list what was chosen of a group of several; their names tell such parts apart.
        for option in theirs if group in SEVERAL else theirs & {chosen.get(group)}:
            for line in option_lines(source, group, option).values():
                stated = rules_of(line, f"{group}/{option}.yaml")
                rules |= {} if stated is None else {f"{group}.{line.key}": stated}
    return rules


def rule(key: str, target: Any) -> Rules | None:
    """The rule of a key; `target` is the class of the part that has it. None where there is none."""
    return _rule(key, show(target))


@cache
def _rule(key: str, target: str) -> Rules | None:
    if key in keys_of("train"):
        return keys_of("train")[key].rules
    group, field = key.split("."), list[str]()
    while group and not CONF.joinpath(*group).is_dir():
        field.insert(0, group.pop())
    if group and group[0] in SEVERAL:
        field = field[1:]  # callbacks.agc.eps stands in callbacks/agc.yaml as eps
    stated = [keys_of(file).get(".".join(field)) for file in (origins("/".join(group), target) if group else ())]
    return next((key.rules for key in stated if key is not None and key.rules is not None), None)
