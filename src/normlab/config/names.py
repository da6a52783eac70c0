"""Checks that options, keys and extras exist; a refusal names the nearest."""

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf
from packaging.requirements import Requirement

from normlab.config.hints import key_hint, option_hint
from normlab.config.options import SEVERAL, options
from normlab.errors import ConfigError, did_you_mean, show


def check_option(group: str, chosen: Any, available: Sequence[str]) -> None:
    """Raises ConfigError where a chosen option, or one of a list of options, is missing or needs a missing extra."""
    for option in map(show, chosen if isinstance(chosen, list) else [chosen]):
        if option not in available:
            listed = ", ".join(sorted(available)) or "none yet"
            nearest = option_hint(group, option) or did_you_mean(option, available)
            raise ConfigError(f"no option {option} in {group}{nearest} (options: {listed})")
        check_extra(f"{group}={option}", option)


def check_extra(typed: str, extra: str) -> None:
    """Raises ConfigError where what was typed needs an extra that is not installed; `extra` may be no extra at all."""
    for requirement in _requirements():
        if _is_of_extra(requirement, extra) and not _installed(requirement.name):
            raise ConfigError(f"{typed} needs {requirement.name}, which is not installed: pip install -e '.[{extra}]'")


def check_name(config: DictConfig, key: str, added: bool) -> None:
    """Raises ConfigError where `key` is not a key of the composed configuration, naming the nearest."""
    path, _, name = key.rpartition(".")
    node = OmegaConf.select(config, path) if path else config
    if node is None or not OmegaConf.is_dict(node):
        check_name(config, path, added=False)
        raise ConfigError(f"no key {name} in {path}, which is a single value")
    if name in node.keys():  # noqa: SIM118  # a key whose value is ??? is not in the node
        return
    where = f" in {path}" if path else ""
    if added and path:
        return  # it is checked when everything is composed
    keys = [str(k) for k in node if not str(k).startswith("_") and k != "overrides"]
    nearest = _choose_first(path, name) or key_hint(key) or did_you_mean(name, keys)
    listed = "" if nearest else f" (keys: {', '.join(keys) or 'none'})"
    raise ConfigError(f"no key {name}{where}{nearest}{listed}")


def _choose_first(group: str, name: str) -> str:
    """The end of a refusal of a key of a callback or logger that was not chosen; empty where there is none."""
    return f"; choose {group}={name}, which has it" if group in SEVERAL and name in options(group) else ""


@cache
def _requirements() -> list[Requirement]:
    return [Requirement(line) for line in importlib.metadata.requires("normlab") or []]


def _is_of_extra(requirement: Requirement, extra: str) -> bool:
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
