"""Composing a configuration, and refusing one that cannot work before torch is imported or a folder is made."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from normlab.config import fair, trust
from normlab.config.conflicts import check_config
from normlab.config.engines import check_engine
from normlab.config.inherited import inherited, is_of_sweep, keep_typed, restore
from normlab.config.inputs import NEED_A_RUN, named_checkpoint
from normlab.config.names import check_name, check_option
from normlab.config.options import GROUPS, run_keys
from normlab.config.overrides import as_typed, is_hydras, is_selection, lines_of, parse, typed_value
from normlab.config.replaying import check_beside, check_data, replayed_folder
from normlab.config.rules import added_rules, check_all, check_typed, rule
from normlab.config.source import OURS, ConfigSource
from normlab.config.starting import check_typed_keys
from normlab.config.unread import check_read, missing_keys
from normlab.config.values import check_value
from normlab.errors import ConfigError, show, unmasked
from normlab.folder import files, place, reuse, writing

NO_SWEEP = "grid"  # the sweep that runs each typed combination once, and so one where nothing has several values

OmegaConf.register_new_resolver("normlab.folder", lambda *args: str(place.resolve(*args)), use_cache=True, replace=True)


@dataclass(frozen=True)
class Composed:
    """One run's checked configuration. hydra: Hydra's own part beside it, by which it starts the run."""

    config: DictConfig
    hydra: DictConfig

    def for_hydra(self) -> DictConfig:
        """Both parts in one tree, as Hydra takes them."""
        whole = self.config.copy()
        with open_dict(whole):
            whole.hydra = self.hydra
        return whole


@unmasked()
def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """The checked configuration of one run, which `python train.py` with these overrides runs.

    With `action=validate` and the like it is the configuration of the run that `name` or `ckpt` points to, changed by
    the overrides. Raises ConfigError.
    """
    if isinstance(overrides, str) or not all(isinstance(line, str) for line in overrides):
        raise ConfigError(f'compose({overrides!r}): expected a list of texts, such as ["model=net", "seed=1"]')
    return check(overrides, data_follows=True).config


def check(overrides: Sequence[str], source: ConfigSource = OURS, data_follows: bool = False) -> Composed:
    """Composes what was typed for one run, and refuses what cannot work.

    data_follows: whether data may still be given from Python, by which a run is told from another too. Raises
    ConfigError.
    """
    overrides = as_typed(overrides)
    composed = compose_job(overrides, source)
    if (sweep := composed.hydra.runtime.choices.get("sweep", NO_SWEEP)) != NO_SWEEP:
        raise ConfigError(f"sweep={sweep} is started with -m; sweep={NO_SWEEP} trains a single run")
    if not data_follows:
        check_data(composed.config)
    check_folder(composed.config, data_follows=data_follows)
    return composed


def check_replay(path: Path, overrides: Sequence[str], source: ConfigSource = OURS) -> ConfigSource:
    """Where the run is composed from that `--config-path <path> --config-name config` names.

    source: whose options may name parts that the run has.
    Raises ConfigError where its configuration names what a run folder may not, or has Hydra do more than run it.
    """
    if (replay := typed_value(parse(overrides), "replay")) is not None:
        raise ConfigError(f"replay={replay} with --config-path: each repeats a run; leave out one of them")
    saved = files.read_config(path)
    if not writing.has_own_header(path):
        raise ConfigError(f"{place.shown(path)} is not replayed: its defaults or hydra parts are not those of a run")
    trusted = _apply([o for o in parse(overrides) if o.key_or_group == "trust"], source)[0].trust
    reading = _reading(path, saved, parse(overrides), trusted, source)
    reading.check_names()
    reading.check_classes()
    return replace(source, folder=f"file://{path.absolute()}", primary="config")


def compose_job(overrides: Sequence[str], source: ConfigSource = OURS) -> Composed:
    """One job's checked configuration. Raises ConfigError."""
    parsed = parse(overrides)
    source = reach(parsed, source)
    if swept := [override.input_line for override in parsed if override.is_sweep_override()]:
        raise ConfigError(f"{swept[0]}: several values make a sweep, and that is started with -m")
    action, name = typed_value(parsed, "action", "fit"), typed_value(parsed, "name")
    check_value("action", action, "fit", rule("action", None))
    check_typed_keys(parsed, action)
    replayed = _replayed(parsed)
    run_folder = place.resolve(name, action, _checkpoint(parsed))
    if replayed is not None and run_folder.absolute() == replayed.absolute():
        raise ConfigError(f"name={name} is the run that replay={replayed} repeats: choose another name=")
    _check_place(run_folder, action)
    goes_on = action != "fit" or (name is not None and typed_value(parsed, "extend", False))
    made_in = replayed or (run_folder if goes_on and files.holds_run(run_folder) else None)
    saved = None if made_in is None else files.read_config(made_in)
    made_with, kept = ([], {}) if saved is None else inherited(saved, parsed, source)
    config, hydra = _apply(made_with + parsed, source, kept)
    fair.leave_out(config, hydra.sweeper, parsed)
    config.overrides = [line for line in overrides if not is_of_sweep(line)]
    keep_typed(config)
    check_read(config)
    check_all(config, added_rules(hydra.runtime.choices, made_with + parsed, source))
    if saved is None or made_in is None:
        check_config(config, run_folder)
        return Composed(config, hydra)
    reading = _reading(made_in, saved, parsed, config.trust, source)
    reading.check_names()
    if missing := missing_keys(saved):
        raise files.damaged(made_in / "config.yaml", f"lacks {missing[0]}, and so is of an earlier normlab")
    config = restore(config, overrides, saved)
    check_config(config, run_folder)
    reading.check_classes()  # last, since it may import torch
    return Composed(config, hydra)


def of_run(folder: Path, trusted: Collection[str]) -> DictConfig:
    """The configuration that a run was made with, for a look at its network.

    trusted: packages whose parts it may name. Raises ConfigError for one that names others, and DamagedError.
    """
    saved = files.read_config(folder)
    reading = _reading(folder, saved, [], [*_apply([], OURS)[0].trust, *trusted], OURS)
    reading.check_names()
    if missing := missing_keys(saved):
        raise files.damaged(folder / "config.yaml", f"lacks {missing[0]}, and so is of an earlier normlab")
    check_all(saved)
    reading.check_classes()
    return saved


def check_folder(config: DictConfig, number: int | None = None, data_follows: bool = False) -> None:
    """Raises ConfigError where the folder of a fit with a name, or of a job of a sweep, holds something else."""
    if config.action == "fit" and config.name is not None:
        path = place.resolve(config.name)
        reuse.check_fit(path if number is None else path / str(number), config, data_follows)


def check_selections(parsed: Iterable[Override], source: ConfigSource) -> list[Override]:
    """The overrides that Hydra composes, with each option checked. Raises ConfigError."""
    selections = [override for override in parsed if is_selection(override) or is_hydras(override)]
    for override in selections:
        group, option = override.key_or_group, override.value()
        if override.is_delete() and group.split(".")[0] in run_keys():
            raise ConfigError(f"{override.input_line}: normlab reads {group}, so it cannot be left out; set it to null")
        check_engine(group, option)
        if (group in GROUPS or group.startswith("hydra/")) and not override.is_delete():
            check_option(group, option, source.options(group))
    return selections


@cache
def parts(group: str, source: ConfigSource = OURS) -> list[tuple[str, Any]]:
    """What the options of a group name, and under which keys: ("callbacks.agc", "….AdaptiveGradientClipping")."""
    if group not in GROUPS:
        return []
    trees = [source.read(group, option) for option in source.options(group)]
    return [target for tree in trees for target in trust.targets(tree, group)]


def reach(parsed: Iterable[Override], source: ConfigSource) -> ConfigSource:
    """The source with the folders of options that were typed as hydra.searchpath=[…]. Raises ConfigError."""
    folders = typed_value(parsed, "hydra.searchpath", [])
    if not isinstance(folders, list) or not all(isinstance(folder, str) for folder in folders):
        raise ConfigError(
            f"hydra.searchpath={show(folders)}: expected a list of folders, such as [file:///home/me/conf]"
        )
    return source.also(folders, "hydra.searchpath") if folders else source


def _apply(
    parsed: list[Override], source: ConfigSource, kept: Mapping[str, Any] | None = None
) -> tuple[DictConfig, DictConfig]:
    """The composed options with the typed values put in, each name and value checked on the way; and Hydra's part.

    kept: parts that stand in place of options, by their groups.
    """
    selections = check_selections(parsed, source)
    config = source.compose(lines_of(selections))
    with open_dict(config):
        hydra = config.pop("hydra")
        config.update(kept or {})
    typed = [override for override in parsed if override not in selections]
    of_run = [override for override in parsed if not is_hydras(override)]
    hydra.overrides.task = [*lines_of(of_run)]
    hydra.job.override_dirname = get_overrides_dirname(of_run, **hydra.job.config.override_dirname)
    stated = added_rules(hydra.runtime.choices, parsed, source)
    others = {override.key_or_group for override in typed if override.key_or_group.endswith("._target_")}
    for override in sorted(typed, key=lambda override: override.key_or_group not in others):
        key, value = override.key_or_group, override.value()
        added = override.is_add() or override.is_force_add()
        check_name(config, key, added)
        of_another_class = f"{key.split('.')[0]}._target_" in others  # the yaml has the types of its own class alone
        # A run key's type is that of its own default, whatever an experiment has put in its place.
        default = run_keys().get(key, OmegaConf.select(config, key))
        check_typed(config, key, value, None if of_another_class else default, stated)
        OmegaConf.update(config, key, value, merge=True, force_add=added)
    return config, hydra


def _check_place(run_folder: Path, action: str) -> None:
    """Raises ConfigError where an action cannot write, or has no run to look at."""
    if action in NEED_A_RUN:
        reuse.check_action(run_folder, action)


def _replayed(parsed: list[Override]) -> Path | None:
    """The folder of the run that replay= repeats; None without it. Raises ConfigError."""
    replay = typed_value(parsed, "replay")
    if replay is None:
        return None
    folder = replayed_folder(replay)
    check_beside(parsed, folder)
    return folder


def _reading(
    run_folder: Path, saved: DictConfig, parsed: list[Override], trusted: Sequence[str], source: ConfigSource
) -> trust.Reading:
    typed, file = {override.key_or_group for override in parsed}, place.shown(run_folder) / "config.yaml"
    return trust.Reading(str(file), saved, typed, trusted, lambda group: parts(group, source))


def _checkpoint(parsed: list[Override]) -> str | None:
    """What was typed as ckpt=. Raises ConfigError for a file that is not there, before its run is looked for."""
    typed, name = typed_value(parsed, "ckpt"), typed_value(parsed, "name")
    if typed in (None, "best", "last") or Path(typed).is_file():
        return typed
    if name is None or not named_checkpoint(typed, place.resolve(name)).is_file():
        raise ConfigError(f"ckpt={typed}: there is no file {typed}")
    return typed
