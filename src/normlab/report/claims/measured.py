"""What was measured of fresh runs, as a claim's verdict takes it."""

import math
from collections.abc import Hashable, Sequence

from normlab.folder.measures import MEASURES, Measure, read_measured
from normlab.report.blocks import overlap, unit_of
from normlab.report.charts import seed
from normlab.report.claims.record import Claim, Pair
from normlab.report.claims.verdict import Evidence, Observed
from normlab.report.fair.standing import LUCK
from normlab.report.fair.sweep import Arm, FairSweep
from normlab.report.runs import Run
from normlab.report.statistics import NAN
from normlab.sweeps.fair.run import DIVERGED

UNKNOWN = Measure("", "")  # a measure of another version


class Measures:
    """What was measured of all fresh runs of a sweep; each run's files are read once, for all claims."""

    def __init__(self, sweep: FairSweep):
        self.sweep = sweep
        self.arms = {arm.name: arm for arm in sweep.arms}
        self.by_run = {run.folder: read_measured(run.folder) for arm in sweep.arms for run in arm.fresh}

    def evidence(self, claim: Claim, pair: Pair) -> Evidence:
        """A claim on one of its pairs."""
        measure = MEASURES.get(claim.measure, UNKNOWN)
        arms = {own: self.arms.get(name) for own, name in pair.arms.items()}
        known = [arm for arm in arms.values() if arm is not None]
        runs = [run for arm in known for run in arm.fresh]
        seeds = frozenset(seed(run) for run in runs)
        return Evidence(
            name=pair.name,
            arms={own: self._observed(arm, claim, seeds) for own, arm in arms.items()},
            missing=pair.missing,
            guess=_guess(runs, measure),
            floor=_floor(runs, measure),
            overlap=_overlap(runs, known),
        )

    def _observed(self, arm: Arm | None, claim: Claim, seeds: frozenset[Hashable]) -> Observed:
        """An arm's fresh runs. seeds: those of all arms, with which one would diverge that no rate could train."""
        if arm is None or arm.refused is not None:
            return Observed({}, lacking=("refused" if arm else "to come",) * self.sweep.seeds)
        if untrainable(arm):
            if len(arm.trials) >= claim.least_seeds:  # they say as much as the fresh runs that a verdict needs
                return Observed({}, seeds)
            return Observed({}, lacking=("without a setting, since all trials diverged",) * self.sweep.seeds)
        values, gone, lacking = {}, set(), ["to come"] * (self.sweep.seeds - len(arm.fresh))
        for run in arm.fresh:
            value = self.by_run[run.folder].get(claim.measure, NAN)
            if diverged(run):
                gone.add(seed(run))
            elif run.score is None:
                lacking.append("failed" if run.lost else "to come")
            elif not math.isfinite(value):
                lacking.append("not measured")
            else:
                values[seed(run)] = value
        return Observed(values, frozenset(gone), tuple(lacking))


def _guess(runs: Sequence[Run], measure: Measure) -> float | None:
    """What always saying the most frequent class scores; None where no run says it."""
    if not measure.is_accuracy:
        return None
    (part,) = measure.shares_of
    return next((run.majority[part] for run in runs if part in run.majority), None)


def diverged(run: Run) -> bool:
    """Whether a run ended as its loss was not finite."""
    return run.status == "failed" and (run.error or "").startswith(DIVERGED)


def untrainable(arm: Arm) -> bool:
    """Whether all trials of an arm diverged; it then has no tuned setting, and gets no fresh runs."""
    return bool(arm.trials) and all(trial.run is not None and diverged(trial.run) for trial in arm.trials)


def _floor(runs: Sequence[Run], measure: Measure) -> float:
    """The least variance of a value: shares of n samples are evenly spread within 1 / n."""
    samples = next((run.samples for run in runs if {*measure.shares_of} <= run.samples.keys()), {})
    return sum(1 / samples[part] ** 2 / 12 for part in measure.shares_of if samples.get(part))


def _overlap(runs: Sequence[Run], arms: Sequence[Arm]) -> float:
    """What is added to 1 / seeds in the variance of a mean; NaN where that is not known. See blocks.py and LUCK."""
    shared = overlap(unit_of(runs), runs, "test") if runs else 0.0
    luck = LUCK if any(len(arm.trials) > 1 for arm in arms) else 0.0
    return NAN if shared is None else shared + luck
