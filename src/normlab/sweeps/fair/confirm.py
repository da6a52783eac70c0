"""`hydra.sweeper.confirm=`: a search's best trials are run again on fresh seeds before one is called the best."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from normlab.config.arms import Arm
from normlab.config.compose import compose_job
from normlab.config.objectives import direction, values
from normlab.config.source import ConfigSource
from normlab.config.space import Space
from normlab.errors import show
from normlab.folder.files import known_result
from normlab.sweeps.fair.folders import Folders
from normlab.sweeps.fair.record import arm_record, read_record, write_record
from normlab.sweeps.fair.run import Run, has_diverged, is_answer
from normlab.sweeps.launchers.queue import NumberedJob, serve
from normlab.sweeps.watch import Watch

if TYPE_CHECKING:  # Optuna is an extra
    from optuna.study import Study
    from optuna.trial import FrozenTrial

BEST = 3  # trials that are run again


@dataclass
class Search:
    """What a confirmation needs to know of a search.

    path: its folder. settings: what its jobs have in common, with Hydra's own part; fixed: the overrides for that.
    source: what they are composed from.
    """

    path: Path
    settings: DictConfig
    fixed: Sequence[str]
    space: Space
    objective: str
    source: ConfigSource


@dataclass
class Confirmed:
    """A trial and its fresh runs. Run k, counted from 1, has the seed of the search plus k."""

    arm: Arm
    trial: Run
    fresh: list[Run]

    def reached(self, objective: str) -> list[float]:
        """The objective of each fresh run that has one."""
        finished = [run.result for run in self.fresh if run.result.get("status") == "finished"]
        return [value for result in finished for value in values(result, [objective]) or []]


class Confirmation:
    """The fresh runs of a search's three best trials, and of those that an earlier start has confirmed.

    A fresh run is known by its configuration's hash, so that the same command goes on, and one with more seeds adds
    runs. Its folder has a number above those of all trials. A run that diverged is an answer; one that failed
    otherwise is run again by the same command. How they stand is fair.json, in the search's folder.
    """

    def __init__(self, search: Search, study: "Study", seeds: int):
        self.search, self.seeds = search, seeds
        trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
        self.earlier = fresh_numbers(search.path, study)
        folders = Folders(search.path)
        folders.taken = {number for number, trial in trials.items() if trial.params}
        confirmed = {arm["tuned"]["job"] for arm in read_record(search.path).get("arms", [])}
        best = [trial.number for trial in islice(_ranked(study, search.space), BEST)]
        self.trials = [
            self._confirmed(trials[number], folders) for number in dict.fromkeys([*best, *sorted(confirmed)])
        ]

    def run(self, engine: Launcher, watch: Watch, most: int) -> list[int]:
        """Runs the fresh runs that are still to be run, and returns which of them have failed without an answer."""
        runs = {run.number: run for trial in self.trials for run in trial.fresh}
        waiting = iter([run for run in runs.values() if not run.over])
        failed = []
        watch.total += len(runs.keys() - self.earlier)
        watch.board.keys.add("seed")
        watch.board.compared = {*runs}

        def next_job() -> NumberedJob | None:
            if (run := next(waiting, None)) is None:
                return None
            run.begun = True
            self._write()
            return NumberedJob(run.number, run.job.overrides)

        def ended(number: int, returned: JobReturn) -> None:
            run = runs[number]
            run.over, run.result = True, known_result(self.search.path / str(number))
            self._write()
            watch.failed(number, returned)
            if not is_answer(run.result):
                failed.append(number)

        self._write()
        serve(engine, next_job, ended, most)
        return sorted(failed)

    @property
    def is_over(self) -> bool:
        """Whether every fresh run has given an answer."""
        return all(is_answer(run.result) for trial in self.trials for run in trial.fresh)

    def summary(self) -> str:
        """What each trial reached on fresh seeds, the best mean first; the report says which are told apart."""
        lines = [f"on {self.seeds} seed{'s' * (self.seeds > 1)} that the search did not use:"]
        return "\n".join([*lines, *(f"  {self._line(trial)}" for trial in sorted(self.trials, key=self._rank))])

    def _rank(self, confirmed: Confirmed) -> tuple[int, float]:
        """What is lower for a better trial."""
        reached = confirmed.reached(self.search.objective)
        mean = fmean(reached) if reached else -math.inf if self._is_raised else math.inf
        return _diverged(confirmed), -mean if self._is_raised else mean

    def _confirmed(self, trial: "FrozenTrial", folders: Folders) -> Confirmed:
        search, point = self.search, dict(trial.params)
        settings = {key: show(value) for key, value in point.items()}
        chosen = [f"{key}={value}" for key, value in settings.items()]
        lines = (*search.fixed, *chosen)
        arm = Arm(" ".join(chosen), settings, lines, search.space, compose_job(lines, search.source), search.source)
        jobs = [arm.job({"seed": arm.config.seed + replicate}) for replicate in range(1, self.seeds + 1)]
        fresh = []
        for job, number in zip(jobs, folders.place(jobs), strict=True):
            over = is_answer(before := folders.before(number))
            fresh.append(Run(job, number, point, over, over, before if over else {}))
        own = known_result(search.path / str(trial.number))
        return Confirmed(arm, Run(arm.job({}), trial.number, point, True, True, own), fresh)

    @property
    def _is_raised(self) -> bool:
        return direction(self.search.objective, self.search.settings.score_mode) == "maximize"

    @property
    def _name(self) -> str:
        """The objective's own name, val/acc for the score."""
        named = self.search.objective
        return self.trials[0].trial.result["score_name"] if named == "score" else named

    def _line(self, confirmed: Confirmed) -> str:
        """A trial's number, the mean and sd that it reached with fresh seeds, in the search, and on the test part."""
        first, objective = confirmed.trial.result, self.search.objective
        name = self._name
        (searched,) = values(first, [objective]) or [float("nan")]
        parts = [f"{name} {_spread(confirmed.reached(objective))} (in the search {searched:.4g})"]
        test = f"test/{name.rpartition('/')[2]}"
        if tested := [run.result["metrics"][test] for run in confirmed.fresh if test in run.result.get("metrics", {})]:
            parts.append(f"{test} {_spread(tested)}")
        if diverged := _diverged(confirmed):
            parts.append(f"{diverged} of {len(confirmed.fresh)} diverged")
        return ", ".join([str(confirmed.trial.number), *parts, confirmed.arm.name])

    def _write(self) -> None:
        search, hydra = self.search, self.search.settings.hydra
        choices = hydra.runtime.choices
        write_record(
            search.path,
            {
                "confirm": True,
                "keys": [*search.space],
                "trials": 1,
                "seeds": self.seeds,
                "budget": "trials",
                "seconds": None,
                "over": "seed",
                "sampler": choices["hydra/sweeper/sampler"],
                "pruner": choices["hydra/sweeper/pruner"],
                "score": self._name,
                "score_mode": "max" if self._is_raised else "min",
                "arms": [arm_record(trial.arm, [trial.trial], 0, trial.fresh) for trial in self.trials],
            },
        )


def fresh_numbers(path: Path, study: "Study") -> set[int]:
    """The numbers of the folders of a search that are no trial's: those of fresh runs that were begun."""
    trials = {trial.number for trial in study.get_trials(deepcopy=False) if trial.params}
    return {int(entry.name) for entry in path.iterdir() if entry.name.isdecimal()} - trials


def _ranked(study: "Study", space: Space) -> Iterator["FrozenTrial"]:
    """The trials that reached the objective, the best first; of trials with the same values the first."""
    from optuna.study import StudyDirection
    from optuna.trial import TrialState

    completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    highest = study.direction == StudyDirection.MAXIMIZE
    seen = []
    for trial in sorted(completed, key=lambda trial: (-trial.values[0] if highest else trial.values[0], trial.number)):
        if trial.params not in seen:
            seen.append(trial.params)
            yield trial


def _diverged(confirmed: Confirmed) -> int:
    return sum(has_diverged(run.result) for run in confirmed.fresh)


def _spread(values: Sequence[float]) -> str:
    """Mean ± sd, or the one value."""
    if not values:
        return "none"
    return f"{fmean(values):.4g}" + (f" ± {stdev(values):.2g}" if len(values) > 1 else "")
