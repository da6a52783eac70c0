"""Checks the values of a configuration by the rules that the yaml files state behind their keys: see `meanings`.

A rule binds the part whose file has the key, and no other.
"""

from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from normlab.config.meanings import keys_of
from normlab.config.options import CONF, SEVERAL, origins
from normlab.config.values import Rules, check_value
from normlab.errors import ConfigError, show


def check_typed(config: DictConfig, key: str, value: Any, default: Any) -> None:
    """Raises ConfigError where `value` fits neither the rule of `key` nor, without a rule, the type of its default.

    config: has the part that the key belongs to, or is to.
    """
    parent = key.rpartition(".")[0]
    target = OmegaConf.select(config, f"{parent}._target_") if parent else None
    check_value(key, value, default, rule(key, target))


def check_all(config: DictConfig) -> None:
    """Raises ConfigError for a value of a configuration, wherever it came from, that breaks its rule or has none to
    stand for, as ${optimizer.lr} where the optimizer has no such key."""
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
                if (rules := rule(full, node.get("_target_"))) is not None:
                    check_value(full, value, value, rules)
                look(value, full)

    look(plain, "")


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
    return next((told.rules for told in stated if told is not None and told.rules is not None), None)
