"""Reads what a fair sweep left: fair.json, and the runs that it names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normlab.errors import ConfigError
from normlab.report.runs import Run, read_record, read_run

if TYPE_CHECKING:
    from normlab.report.settings import Settings

FILE = "fair.json"


@dataclass(frozen=True)
class Trial:
    """A tuning run. point: the value of each tuned key. run: None where it was not begun."""

    point: dict[str, Any]
    run: Run | None

    @property
    def lost(self) -> bool:
        """Whether it ended without a score, as by a loss that is not finite."""
        return self.run is not None and self.run.lost


@dataclass(frozen=True)
class Arm:
    """One of the compared variants. fresh: its fresh runs that were begun.

    tuned: the best trial; None before the trials have ended, and where none has a score. refused: why the arm did not
    run at all.
    """

    name: str
    settings: dict[str, str]
    space: dict[str, str]
    trials: list[Trial]
    tuned: Trial | None
    fresh: list[Run]
    refused: str | None


@dataclass(frozen=True)
class FairSweep:
    """keys: what the arms differ in. trials, seeds: how many each arm was to get. over: what the fresh runs vary.

    With budget=seconds trials is 0, as nobody asked for a number.
    """

    folder: Path
    keys: tuple[str, ...]
    trials: int
    seeds: int
    budget: str
    seconds: float | None
    over: str
    sampler: str
    pruner: str
    score: str
    minimized: bool
    confirm: bool
    arms: list[Arm]

    @property
    def blind(self) -> bool:
        """Whether the points of the trials and their number did not depend on any result."""
        return self.sampler == "quasi_random" and self.pruner == "none" and self.budget == "trials"

    @property
    def with_settings(self) -> "list[tuple[Run, Settings]]":
        """All runs that were begun, each with the settings in which they differ."""
        from normlab.report.settings import settings_of  # with pandas

        return list(zip(self.runs, settings_of(self.runs), strict=True)) if self.runs else []

    @property
    def runs(self) -> list[Run]:
        """All runs that were begun, each arm's trials before its fresh runs."""
        return [
            run
            for arm in self.arms
            for run in (*(trial.run for trial in arm.trials if trial.run is not None), *arm.fresh)
        ]


def is_fair(folders: Sequence[Path]) -> bool:
    """Whether the folder holds a sweep whose arms were run again. Raises ConfigError where others are to be with it."""
    fair = [folder for folder in folders if (folder / FILE).is_file()]
    if fair and len(folders) > 1:
        raise ConfigError(f"{fair[0]} is a fair sweep, whose tuning runs are compared with no others: report it alone")
    return bool(fair)


def read_sweep(folder: Path) -> FairSweep:
    """The sweep in a folder. Raises ConfigError where fair.json is damaged, or of a newer version."""
    return read_record(folder / FILE, lambda content: _sweep(folder, content))


def _sweep(folder: Path, content: dict[str, Any]) -> FairSweep:
    seconds = content["seconds"]
    return FairSweep(
        folder=folder,
        keys=tuple(map(str, content["keys"])),
        trials=int(content["trials"] or 0),
        seeds=int(content["seeds"]),
        budget=str(content["budget"]),
        seconds=None if seconds is None else float(seconds),
        over=str(content["over"]),
        sampler=str(content["sampler"]),
        pruner=str(content["pruner"]),
        score=str(content["score"] or "score"),
        minimized=content["score_mode"] == "min",
        confirm=bool(content.get("confirm")),
        arms=[_arm(folder, arm) for arm in content["arms"]],
    )


def _arm(folder: Path, content: dict[str, Any]) -> Arm:
    trials = [Trial(dict(trial["point"]), _run(folder, trial["job"])) for trial in content["trials"]]
    tuned, refused = content["tuned"], content["refused"]
    return Arm(
        name=str(content["name"]),
        settings={str(key): str(value) for key, value in content["settings"].items()},
        space={str(key): str(values) for key, values in content["space"].items()},
        trials=trials,
        tuned=None if tuned is None else trials[int(tuned["trial"])],
        fresh=[run for fresh in content["fresh"] if (run := _run(folder, fresh["job"])) is not None],
        refused=None if refused is None else str(refused),
    )


def _run(folder: Path, job: Any) -> Run | None:
    return None if job is None else read_run(folder / str(int(job)))


def numbers(arm: Arm, key: str) -> list[float]:
    """The values of a key in an arm's trials."""
    return [float(trial.point[key]) for trial in arm.trials]


def scores(trials: Sequence[Trial]) -> list[float | None]:
    """The tuning score of each trial; None for one without."""
    return [trial.run.score if trial.run is not None else None for trial in trials]
