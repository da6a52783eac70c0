"""Composing a configuration, and refusing one that cannot work before torch is imported or a folder is made."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.initialize import get_gh_backup, restore_gh_from_backup
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from normlab.config import trust
from normlab.config.conflicts import check_config
from normlab.config.engines import (
    check_engine,
)
from normlab.config.inputs import NEED_A_RUN
from normlab.config.names import check_name, check_option
from normlab.config.options import CONF, GROUPS, options, read_option, run_keys
from normlab.config.rules import check_all, check_typed, rule
from normlab.config.space import parse
from normlab.config.unread import check_read
from normlab.config.values import check_value
from normlab.errors import ConfigError
from normlab.folder import files, place, reuse, writing

__all__ = ["CONF", "GROUPS", "check", "compose", "options", "read_option"]

TEXT = ("name", "ckpt", "input", "data.path", "data.root")  # keys whose values stay as they are typed: 1_0, 1e3, true

OmegaConf.register_new_resolver("normlab.folder", lambda *args: str(place.resolve(*args)), use_cache=True, replace=True)


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """The checked configuration of one run, as `python train.py` with these overrides composes it.

    With `action=validate` and the like it is the configuration of the run that `name` or `ckpt` points to, changed by
    the overrides. Raises ConfigError.
    """
    if isinstance(overrides, str) or not all(isinstance(line, str) for line in overrides):
        raise ConfigError(f'compose({overrides!r}): expected a list of texts, such as ["model=net", "seed=1"]')
    return check(overrides, data_follows=True)[0]


def check(overrides: Sequence[str], data_follows: bool = False) -> tuple[DictConfig, list[str]]:
    """Looks at a command line; returns its configuration and the overrides that let Hydra compose it.

    These are the given ones; an action on an old run has that run's options put in front. data_follows: whether data
    may still be given from Python, by which a run is told from another too. Raises ConfigError.
    """
    overrides = as_typed(overrides)
    if (space := _typed(parse(overrides), "sweep")) is not None:
        raise ConfigError(f"sweep={space}: a search is started with -m")
    with _loader() as loader:
        config, composing = _compose(list(overrides), loader)
    _check_folder(config, data_follows=data_follows)
    return config, composing


def check_replay(path: Path, overrides: Sequence[str]) -> None:
    """Looks at the run that `--config-path <path> --config-name config` lets Hydra compose.

    Raises ConfigError where its configuration names what a run folder may not, or has Hydra do more than run it.
    """
    saved = files.read_config(path)
    if not writing.has_own_header(path):
        raise ConfigError(f"{place.shown(path)} is not replayed: its defaults or hydra parts are not those of a run")
    with _loader() as loader:
        trusted = _apply([o for o in parse(overrides) if o.key_or_group == "trust"], loader).trust
    reading = _reading(path, saved, parse(overrides), trusted)
    reading.check_names()
    reading.check_classes()


def as_typed(lines: Iterable[str]) -> list[str]:
    """The same lines, with names and paths in quotes where Hydra would take them for numbers or for true and false."""
    return [_quoted(line) for line in lines]


def _quoted(line: str) -> str:
    key, equals, value = line.partition("=")
    if not equals or key.lstrip("+") not in TEXT or not isinstance(parse([line])[0].value(), bool | int | float):
        return line
    return f"{key}='{value}'"


def keep_typed(config: DictConfig) -> None:
    """Where a part's `_target_` was typed, leaves of the part's keys those typed: the others are of another class."""
    typed = [override.key_or_group.split(".") for override in parse(config.overrides)]
    for group in [key[0] for key in typed if key[1:] == ["_target_"] and key[0] in GROUPS]:
        keys = ["_partial_", *(key[1] for key in typed if key[0] == group and len(key) > 1)]
        config[group] = {key: value for key, value in config[group].items() if key in keys}


def restore(fresh: DictConfig, overrides: Iterable[str], saved: DictConfig) -> DictConfig:
    """A run's saved configuration, changed by the overrides, whose values are those of `fresh`."""
    saved = saved.copy()
    saved.name, saved.ckpt, saved.trust = fresh.name, fresh.ckpt, fresh.trust
    if fresh.action == "predict":  # one process does it, however many have trained
        saved.trainer.devices = saved.trainer.num_nodes = 1
    for override in parse(overrides):
        key = override.key_or_group
        if key == "experiment":
            raise ConfigError(f"experiment={override.value()}: an old run keeps its settings; change single keys")
        if not _is_hydras(override):
            OmegaConf.update(saved, key, OmegaConf.select(fresh, key), merge=False, force_add=True)
    return saved


@cache
def parts(group: str) -> list[tuple[str, Any]]:
    """What the options of a group name, and under which keys: ("callbacks.agc", "….AdaptiveGradientClipping")."""
    if group not in GROUPS:
        return []
    trees = [OmegaConf.to_container(read_option(group, option)) for option in options(group)]
    return [found for tree in trees for found in trust.targets(tree, group)]


@contextmanager
def _loader() -> Iterator[ConfigLoader]:
    outer = get_gh_backup()  # inside a Hydra job there is a GlobalHydra already
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_module("normlab.conf", version_base="1.3"):
            yield GlobalHydra.instance().config_loader()
    finally:
        restore_gh_from_backup(outer)


def _compose(overrides: list[str], loader: ConfigLoader) -> tuple[DictConfig, list[str]]:
    """One job's checked configuration, and the overrides that let Hydra compose it."""
    parsed = parse(overrides)
    if swept := [override.input_line for override in parsed if override.is_sweep_override()]:
        raise ConfigError(f"{swept[0]}: several values make a sweep, and that is started with -m")
    action, name = _typed(parsed, "action", "fit"), _typed(parsed, "name")
    check_value("action", action, "fit", rule("action", None))
    run_folder = place.resolve(name, action, _checkpoint(parsed))
    if action == "fit":
        place.check_place(run_folder)
    if action in NEED_A_RUN:
        reuse.check_action(run_folder, action)
    if action != "fit":
        place.check_place(run_folder / action)
    saved = files.read_config(run_folder) if action != "fit" and files.holds_run(run_folder) else None
    inherited = [] if saved is None else _inherited(saved, parsed)
    config = _apply(parse(inherited) + parsed, loader)
    config.overrides = overrides
    keep_typed(config)
    check_read(config)
    check_all(config)
    if saved is None:
        check_config(config, run_folder)
        return config, overrides
    reading = _reading(run_folder, saved, parsed, config.trust)
    reading.check_names()
    config = restore(config, overrides, saved)
    check_config(config, run_folder)
    reading.check_classes()  # last, since it may import torch
    return config, inherited + overrides


def _reading(run_folder: Path, saved: DictConfig, parsed: list[Override], trusted: Sequence[str]) -> trust.Reading:
    typed = {override.key_or_group for override in parsed}
    return trust.Reading(str(place.shown(run_folder) / "config.yaml"), saved, typed, trusted, parts)


def _check_folder(config: DictConfig, number: int | None = None, data_follows: bool = False) -> None:
    """Raises ConfigError where the folder of a fit with a name, or of a job of a sweep, holds something else."""
    if config.action == "fit" and config.name is not None:
        path = place.resolve(config.name)
        reuse.check_fit(path if number is None else path / str(number), config, data_follows)


def _lines(overrides: Iterable[Override]) -> tuple[str, ...]:
    return tuple(override.input_line for override in overrides if override.input_line)


def _checkpoint(parsed: list[Override]) -> str | None:
    """What was typed as ckpt=. Raises ConfigError for a file that is not there, before its run is looked for."""
    typed = _typed(parsed, "ckpt")
    if typed not in (None, "best", "last") and not Path(typed).is_file():
        raise ConfigError(f"ckpt={typed}: there is no file {typed}")
    return typed


def _typed(parsed: list[Override], key: str, default: Any = None) -> Any:
    """The value typed for a run key, which says where to look before anything is composed."""
    return next((override.value() for override in reversed(parsed) if override.key_or_group == key), default)


def _inherited(saved: DictConfig, parsed: list[Override]) -> list[str]:
    """The options that a run was made with, but for those typed anew."""
    typed = {override.key_or_group for override in parsed}
    made_with = [o for o in parse(saved.overrides) if o.key_or_group not in typed and o.key_or_group in GROUPS]
    return [o.input_line for o in made_with if _is_selection(o) and not o.is_sweep_override() and o.input_line]


def _apply(parsed: list[Override], loader: ConfigLoader) -> DictConfig:
    """The composed options with the typed values put in, each name and value checked on the way."""
    selections = _selections(parsed, loader)
    config = copy.deepcopy(_hydra_compose(_lines(selections)))
    typed = [override for override in parsed if override not in selections]
    others = {override.key_or_group for override in typed if override.key_or_group.endswith("._target_")}
    for override in sorted(typed, key=lambda override: override.key_or_group not in others):
        key, value = override.key_or_group, override.value()
        added = override.is_add() or override.is_force_add()
        check_name(config, key, added)
        of_another_class = f"{key.split('.')[0]}._target_" in others  # than that of the yaml, which has the types
        check_typed(config, key, value, None if of_another_class else OmegaConf.select(config, key))
        OmegaConf.update(config, key, value, merge=True, force_add=added)
    return config


def _selections(parsed: list[Override], loader: ConfigLoader) -> list[Override]:
    """The overrides that are Hydra's to compose, each option checked."""
    selections = [override for override in parsed if _is_selection(override) or _is_hydras(override)]
    for override in selections:
        group, option = override.key_or_group, override.value()
        if override.is_delete() and group.split(".")[0] in run_keys():
            raise ConfigError(f"{override.input_line}: normlab reads {group}, so it cannot be left out; set it to null")
        check_engine(group, option)
        if (group in GROUPS or group.startswith("hydra/")) and not override.is_delete():
            check_option(group, option, _options(loader, group))
    return selections


@lru_cache(maxsize=64)
def _options(loader: ConfigLoader, group: str) -> list[str]:
    """The options of a group, which Hydra takes long to list, and a sweep asks for with each job."""
    return loader.get_group_options(group)


@cache
def _hydra_compose(overrides: tuple[str, ...], own: bool = False) -> DictConfig:
    """What Hydra composes; own: the part that is called hydra."""
    try:
        config = hydra.compose("train", overrides=list(overrides), return_hydra_config=own)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(str(error).strip()) from error
    return config.hydra if own else config


def _is_selection(override: Override) -> bool:
    """True for `group=option`, false for `key=value`."""
    return (override.key_or_group in GROUPS and not isinstance(override.value(), dict)) or override.is_delete()


def _is_hydras(override: Override) -> bool:
    return override.key_or_group.split("/")[0].split(".")[0] == "hydra"
