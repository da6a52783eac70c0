"""`replay=<run>`: which run is repeated, and what may be typed beside it. It imports no torch."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from normlab.config.overrides import is_hydras, typed_value
from normlab.errors import ConfigError, did_you_mean, show
from normlab.folder.files import find_run, holds_run, read_config, read_result, run_names
from normlab.folder.identity import ELSEWHERE
from normlab.folder.place import ROOT, shown

GIVEN = "normlab.data.common.given."  # where the classes are that stand for data from Python
FILES = ("data.path", "data.val_path", "data.test_path")  # they may lie elsewhere; whether they are the same is checked
# What may be typed beside replay=, since it decides no number: names, where things lie and are told, and the device.
BESIDE = ("replay", "name", "trust", "tags", "logger", "trainer.accelerator", "data.changed", *FILES, *ELSEWHERE)


def replayed_folder(replay: Any) -> Path:
    """The folder of the finished run that `replay=` names, by its name or path; the name counts where both are there.

    Raises ConfigError where there is none, where it has not finished, and where this version cannot read it.
    """
    if not isinstance(replay, str) or not replay:
        raise ConfigError(f"replay={show(replay)}: expected the name of a run under {ROOT}/, or the path of its folder")
    folder = find_run(replay)
    if folder is None:
        raise ConfigError(f"replay={replay}: {_no_run(ROOT / replay, Path(replay))}")
    read_config(folder)  # says what is damaged, or of a later version
    result = read_result(folder)
    if (action := result.get("action", "fit")) != "fit":
        raise ConfigError(
            f"replay={replay}: {shown(folder)} is what action={action} has written; give the run's own folder"
        )
    if (status := result.get("status")) != "finished":
        raise ConfigError(
            f"replay={replay}: only a finished run is repeated, and {shown(folder)} is {status or 'without a result'}"
        )
    return folder


def check_beside(parsed: Iterable[Override], folder: Path) -> None:
    """Raises ConfigError for what was typed beside `replay=` and could change the numbers of the run in `folder`."""
    parsed = [*parsed]
    if (action := typed_value(parsed, "action", "fit")) != "fit":
        raise ConfigError(f"action={action} with replay=: a replay trains; leave out one of them")
    for override in parsed:
        key = override.key_or_group
        known = key in BESIDE or key.startswith("logger.") or is_hydras(override)
        if not known or override.is_delete():
            raise ConfigError(
                f"{override.input_line} with replay=: that repeats the run as it was. To change it: python train.py "
                f"--config-path {shown(folder)} --config-name config name=<new> {override.input_line}"
            )


def check_data(config: DictConfig) -> None:
    """Raises ConfigError for a command that repeats a run whose data was given from Python."""
    if config.replay is not None and config.data._target_.startswith(GIVEN):
        raise ConfigError(
            f"replay={config.replay}: the data of that run was given from Python, and has to be again: "
            f'normlab.run(normlab.compose(["replay={config.replay}"]), data=(train, val, test))'
        )


def _no_run(named: Path, typed: Path) -> str:
    """Why no run was found under a name or a path. named: the folder of a run that is called so."""
    for place in (named, typed):
        if (above := next(filter(holds_run, place.parents), None)) is not None:
            return f"{shown(place)} is no run; did you mean {shown(above)}?"
        jobs = sorted(path.parent for path in place.glob("*/config.yaml")) if place.is_dir() else []
        if jobs:
            return f"{shown(place)} holds several runs; replay one of them, such as replay={shown(jobs[0])}"
    meant = typed if typed.is_absolute() or typed.parts[:1] in (ROOT.parts, ("..",)) else named
    return f"there is no run in {shown(meant)}{did_you_mean(meant.name, run_names())}"
