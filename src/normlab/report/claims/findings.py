"""The claims of a laboratory's sweep with what came out of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from normlab.report.claims.measured import Measures
from normlab.report.claims.record import Claim, read_claims
from normlab.report.claims.verdict import Judged, Trial, Verdict, filled, judge
from normlab.report.fair.sweep import Arm, FairSweep, read_sweep
from normlab.report.statistics import Estimate, estimate


@dataclass(frozen=True)
class Result:
    """A claim and its verdict. trials: what was observed in each of its pairs, in their order."""

    claim: Claim
    trials: list[Trial]
    judged: Judged

    @property
    def verdict(self) -> Verdict:
        return self.judged.verdict


@dataclass(frozen=True)
class Laboratory:
    """form: short or long."""

    form: str
    sweep: FairSweep
    results: list[Result]

    def arm(self, name: str) -> Arm | None:
        """An arm by its name in fair.json; None where the sweep has not begun with it."""
        return next((arm for arm in self.sweep.arms if arm.name == name), None)


def read_laboratory(folder: Path) -> Laboratory:
    """Raises ConfigError where claims.json or fair.json is damaged, or of a newer version."""
    form, claims = read_claims(folder)
    sweep = read_sweep(folder)
    measures = Measures(sweep)
    return Laboratory(form, sweep, [_result(claim, measures) for claim in claims])


def _result(claim: Claim, measures: Measures) -> Result:
    trials = [measures.trial(claim, pair) for pair in claim.pairs]
    weights: Sequence[dict[str, float]] = [weights for _, weights in claim.effects]
    return Result(claim, trials, judge(trials, weights, claim.margin, claim.least_seeds))


def reached(trial: Trial, arm: str) -> Estimate:
    """The measure of an arm: its mean and its interval, with runs that diverged as the rule counts them."""
    return estimate([*filled(trial, trial.arms[arm]).values()], trial.floor, trial.overlap)
