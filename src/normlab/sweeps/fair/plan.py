"""Which job of a fair sweep comes next, and how all arms stand: the content of fair.json."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from normlab.config.arms import Arm, Fair
from normlab.sweeps.fair.arm_runs import ArmRuns, NextPoint
from normlab.sweeps.fair.folders import Folders
from normlab.sweeps.fair.record import arm_record
from normlab.sweeps.fair.rehearsals import check_scores
from normlab.sweeps.fair.run import Run


class Plan:
    """The runs of all arms.

    chooses: makes what chooses the points of an arm. refused: why arms cannot be trained, by their names.
    """

    def __init__(
        self,
        fair: Fair,
        folders: Folders,
        chooses: Callable[[Arm], NextPoint],
        refused: Mapping[str, str] = MappingProxyType({}),
    ):
        self.fair, self.folders = fair, folders
        self.arms = [ArmRuns(fair, arm, folders, chooses(arm), refused.get(arm.name)) for arm in fair.arms]
        for arm in self.arms:
            arm.keep_folders()

    @property
    def runs(self) -> dict[int, Run]:
        """All runs that are planned by now, by the number of their folder."""
        return {run.number: run for arm in self.arms for run in (*arm.trials, *arm.fresh)}

    @property
    def total(self) -> int:
        """How many runs there will be, as far as that is known by now."""
        return self.trials + sum(self._fresh(arm) for arm in self.arms)

    @property
    def trials(self) -> int:
        """How many of them are trials."""
        return sum(len(arm.trials) if arm.refused else max(len(arm.trials), arm.most) for arm in self.arms)

    def next(self) -> Run | None:
        """The next run to begin, of the arm with the fewest begun trials; fresh ones after the trials of all arms."""
        for arm in sorted(self.arms, key=lambda arm: sum(run.begun for run in arm.trials)):
            if (run := arm.next_trial()) is not None:
                return run
        return next((run for arm in self.arms if (run := arm.next_fresh()) is not None), None)

    def arm_of(self, run: Run) -> ArmRuns:
        return next(arm for arm in self.arms if any(each is run for each in (*arm.trials, *arm.fresh)))

    def ended(self, run: Run) -> ArmRuns:
        """Takes note of the end of a run, and returns its arm. Raises ConfigError where arms have different scores."""
        arm = self.arm_of(run)
        arm.ended(run, self.folders.result(run.number))
        self.score()
        return arm

    def score(self) -> tuple[str | None, str | None]:
        """The score and its better end; None before a run has one. Raises ConfigError where arms have several."""
        scores: dict[tuple[str, str], str] = {}
        for arm in self.arms:
            for run in (*arm.trials, *arm.fresh):
                if run.score is not None:
                    scores.setdefault((run.result["score_name"], run.result["score_mode"]), arm.arm.name)
        check_scores(scores)
        return next(iter(scores), (None, None))

    def as_record(self) -> dict[str, Any]:
        """How the sweep stands, in plain values; see record.py."""
        fair, (score, mode) = self.fair, self.score()
        return {
            "keys": [*fair.arms[0].settings],
            "trials": fair.trials,
            "seeds": fair.seeds,
            "budget": fair.budget,
            "seconds": fair.seconds,
            "over": fair.over,
            "sampler": fair.sampler,
            "pruner": fair.pruner_name,
            "score": score,
            "score_mode": mode,
            "arms": [arm_record(arm.arm, arm.counted, arm.best, arm.fresh, arm.refused) for arm in self.arms],
        }

    def _fresh(self, arm: ArmRuns) -> int:
        return len(arm.fresh) if arm.is_tuned else self.fair.seeds
