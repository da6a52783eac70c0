"""The claims of a laboratory's sweep with what came out of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from normlab.report.claims.measured import Measures
from normlab.report.claims.record import Claim, read_claims
from normlab.report.claims.verdict import Evidence, Judged, Verdict, filled, judge
from normlab.report.fair.sweep import Arm, FairSweep, read_sweep
from normlab.report.statistics import Estimate, estimate


@dataclass(frozen=True)
class Result:
    """A claim and its verdict. pairs: what was observed in each of them, in their order."""

    claim: Claim
    pairs: list[Evidence]
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

    @cached_property
    def arms(self) -> dict[str, Arm]:
        """The arms by their names in fair.json."""
        return {arm.name: arm for arm in self.sweep.arms}


def read_laboratory(folder: Path) -> Laboratory:
    """Raises ConfigError where claims.json or fair.json is damaged, or of a newer version."""
    form, claims = read_claims(folder)
    sweep = read_sweep(folder)
    measures = Measures(sweep)
    return Laboratory(form, sweep, [_result(claim, measures) for claim in claims])


def _result(claim: Claim, measures: Measures) -> Result:
    pairs = [measures.evidence(claim, pair) for pair in claim.pairs]
    weights: Sequence[dict[str, float]] = [weights for _, weights in claim.effects]
    return Result(claim, pairs, judge(pairs, weights, claim.margin, claim.least_seeds))


def reached(evidence: Evidence, arm: str) -> Estimate:
    """The measure of an arm: its mean and its interval, with runs that diverged as the rule counts them."""
    return estimate([*filled(evidence, evidence.arms[arm]).values()], evidence.floor, evidence.overlap)
