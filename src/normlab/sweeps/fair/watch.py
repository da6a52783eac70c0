"""Tells how a fair sweep stands: what each arm was tuned to, and how many runs are left."""

from pathlib import Path

from normlab.errors import SweepError
from normlab.folder.identity import REPLICATES
from normlab.folder.place import shown
from normlab.sweeps.board import FAILED
from normlab.sweeps.fair.arm_runs import ArmRuns
from normlab.sweeps.fair.plan import Plan
from normlab.sweeps.fair.run import Run, has_diverged
from normlab.sweeps.watch import Watch


class FairWatch(Watch):
    """As `Watch`. No arm is called the best one before the fresh runs of all have ended, which the report compares."""

    def __init__(self, path: Path, plan: Plan):
        keys = {key for arm in plan.fair.arms for key in (*arm.settings, *arm.space)}
        self.plan = plan
        self.told = [arm for arm in plan.arms if arm.is_tuned]  # refused arms, and those that earlier starts have tuned
        super().__init__(path, plan.total, keys | {*REPLICATES}, plan.runs)

    def tell_first(self) -> None:
        """Says which arms are refused, and what of this command an earlier start has done."""
        for arm in self.plan.arms:
            if arm.refused is not None:
                self.say(_tuned(arm))
        over = sum(run.over for run in self.plan.runs.values())
        others = len(self.plan.folders.begun.keys() - self.plan.runs.keys())
        if self.plan.folders.begun:
            there = f"; {others} of other commands stay as they are" if others else ""
            self.say(f"{shown(self.path)}: {over} of {self.total} runs were there before{there}")

    def follow(self) -> None:
        """Takes note of runs that were planned, or are not to be."""
        self.total = self.plan.total
        self.board.numbers = {*self.plan.runs}

    def tell(self, arm: ArmRuns) -> None:
        """Says once what an arm was tuned to, or why it was not."""
        if arm.is_tuned and arm not in self.told:
            self.told.append(arm)
            self.say(_tuned(arm))

    def check(self) -> None:
        """Raises SweepError where runs failed, or arms were refused."""
        refused = [arm for arm in self.plan.arms if arm.refused is not None]
        failed = [n for n, run in sorted(self.plan.runs.items()) if run.has_failed and not _is_of(run, refused)]
        if failed:
            raise self.error(failed)
        if refused:
            names = ", ".join(arm.arm.name for arm in refused)
            raise SweepError(f"{len(refused)} of {len(self.plan.arms)} arms were refused, and not compared: {names}")

    def _report_failure(self, number: int) -> None:
        """A run that diverged is counted, which is no failure of the sweep."""
        if not has_diverged(self.board.results[number]):
            super()._report_failure(number)

    def _failures(self) -> list[tuple[int, str]]:
        diverged = sum(map(has_diverged, [*self.board.results.values()]))
        return [(diverged, "diverged"), (self.board.count(*FAILED) - diverged, "failed")]

    def _best(self) -> str:
        """How many of the runs that have ended are trials, and how many of those with fresh seeds."""
        plan = self.plan
        trials, fresh = sum(_over(arm.trials) for arm in plan.arms), sum(_over(arm.fresh) for arm in plan.arms)
        return f"{trials}/{plan.trials} trials, {fresh}/{plan.total - plan.trials} fresh runs"


def _is_of(run: Run, arms: list[ArmRuns]) -> bool:
    return any(run in arm.trials for arm in arms)


def _over(runs: list[Run]) -> int:
    return sum(run.over for run in runs)


def _tuned(arm: ArmRuns) -> str:
    """What the trials of an arm have come to, in one line."""
    name, trials = arm.arm.name, arm.counted
    if arm.refused is not None:
        return f"{name} is refused: {arm.refused}"
    diverged = sum(has_diverged(run.result) for run in trials)
    of = f"of {len(trials)} trial{'s' * (len(trials) != 1)}" + (f" ({diverged} diverged)" if diverged else "")
    if arm.best is None:
        return f"{name}: none {of} has a score, and so it gets no fresh runs"
    best = trials[arm.best]
    point = " ".join(f"{key}={value}" for key, value in best.point.items())
    return f"{name} tuned: {point}, {best.result['score_name']} {best.score:.4g}, chosen {of}"
