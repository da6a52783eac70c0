"""The runs of one arm: its trials, which of them was best, and the fresh runs of that setting."""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from normlab.config.arms import Arm, Fair
from normlab.config.space import Job
from normlab.sweeps.fair.folders import Folders
from normlab.sweeps.fair.run import Run, is_answer
from normlab.sweeps.tuned import tuned

NextPoint = Callable[[Sequence[Run]], Mapping[str, Any] | None]  # from the trials so far; None: none for now


class ArmRuns:
    """Plans the runs of an arm, and knows which have ended.

    next_point: chooses the point of the next trial. Trials whose points depend on no result have their folders from
    the start, others as they begin. An arm with nothing to tune has fresh runs alone. refused: why the arm cannot be
    trained at all; where that is not known before, its first run tells.
    """

    def __init__(self, fair: Fair, arm: Arm, folders: Folders, next_point: NextPoint, refused: str | None = None):
        self.fair, self.arm, self.folders, self.next_point = fair, arm, folders, next_point
        self.trials: list[Run] = []
        self.fresh: list[Run] = []
        self.refused = refused
        self.reserved: list[int] = []
        self.known = fair.budget == "trials" and fair.sampler == "quasi_random"  # all trials, before the first
        while self._add_trial() and (self.known or self.trials[-1].over):
            pass

    def keep_folders(self) -> None:
        """Gives the fresh runs their folders once all arms have those of their trials.

        Where the setting is not known yet, the next free ones are kept for them. The folders then do not depend on
        which arm is tuned first, and a sweep that goes on has those of one that was not stopped.
        """
        self._add_fresh()
        if not self.fresh and self.known and self.refused is None:
            self.reserved = self.folders.reserve(self.fair.seeds)

    def next_trial(self) -> Run | None:
        """The next trial to begin; None while there is none."""
        while not (waiting := [run for run in self.trials if not run.begun]):
            if not self._add_trial():
                return None
        return waiting[0]

    def next_fresh(self) -> Run | None:
        """The next fresh run to begin; None while there is none."""
        return next((run for run in self.fresh if not run.begun), None)

    def ended(self, run: Run, result: dict[str, Any]) -> None:
        """Takes note of the end of a run. An arm whose first run was refused before training has no further ones."""
        run.over, run.result = True, result
        if result.get("status") == "refused" and run is [*self.trials, *self.fresh][0]:
            self.refused = str(result["error"])
            self.trials = [trial for trial in self.trials if trial.begun]
            self.fresh = [each for each in self.fresh if each.begun]
        self._add_fresh()

    @property
    def most(self) -> int:
        """How many trials it gets where time does not say it: no more than there are points to try."""
        points = math.prod(values.count for values in self.arm.space.values()) if self.arm.space else 0
        return int(min(self.fair.trials or 0, points))

    @property
    def counted(self) -> list[Run]:
        """The trials that count: by time, those before which less than that was spent."""
        if self.fair.seconds is None:
            return self.trials
        spent = 0.0
        for number, run in enumerate(self.trials):
            if spent >= self.fair.seconds:
                return self.trials[:number]
            spent += run.seconds
        return self.trials

    @property
    def is_tuned(self) -> bool:
        """Whether all trials that count are over."""
        return all(run.over for run in self.counted) and not self._may_add()

    @property
    def best(self) -> int | None:
        """The number of the trial that is run again; None before all are over, and where none has a score."""
        if not self.is_tuned:
            return None
        runs = self.counted
        minimized = any(run.result.get("score_mode") == "min" for run in runs)
        return tuned(self.arm.space, [run.point for run in runs], [run.score for run in runs], minimized)

    def _may_add(self) -> bool:
        if self.refused is not None or not self.arm.space:
            return False
        if self.fair.seconds is None:
            return len(self.trials) < self.most
        return self._has_time(self.fair.seconds)

    def _has_time(self, seconds: float) -> bool:
        """Whether a further trial will count, if those that run take as long as those that have ended.

        Of an arm no more trials run than have ended, or one. A cluster takes every job that there is, and would get
        trials without end before it is known how long they take.
        """
        ended = [run.seconds for run in self.trials if run.over]
        running = len(self.trials) - len(ended)
        if not ended:
            return running == 0
        return running < len(ended) and sum(ended) + running * fmean(ended) < seconds

    def _add_trial(self) -> bool:
        """Plans a further trial; false where there is none to plan."""
        point = self.next_point(self.trials) if self._may_add() else None
        if point is None:
            return False
        self.trials += self._planned([self.fair.trial(self.arm, point)], point)
        return True

    def _add_fresh(self) -> None:
        """Plans the fresh runs once it is known of which setting."""
        best = self.best
        if self.fresh or self.refused is not None or (best is None and self.arm.space):
            return
        point = {} if best is None else self.trials[best].point
        replicates = range(1, self.fair.seeds + 1)
        jobs = [self.fair.fresh(self.arm, point, number) for number in replicates]
        self.fresh = self._planned(jobs, point, self.reserved)

    def _planned(self, jobs: Sequence[Job], point: Mapping[str, Any], reserved: Sequence[int] = ()) -> list[Run]:
        runs = []
        for job, number in zip(jobs, self.folders.place(jobs, reserved), strict=True):
            before = self.folders.before(number)
            over = is_answer(before) and before["config_hash"] == job.config_hash
            runs.append(Run(job, number, dict(point), over, over, before if over else {}))
        return runs
