"""The rule by which a claim gets its verdict. It was fixed before any run, and it knows no files.

An effect is a contrast of arms, such as batch norm's accuracy less that without a norm; a positive one speaks for the
claim. How often the rule is wrong is simulated in tests/report/test_verdicts.py.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product

from scipy.special import stdtr, stdtrit

from normlab.report.statistics import CONFIDENCE, NAN, Estimate, estimate

PAIRS = 2  # fewer pairs of a data set and a network give no verdict
UNKNOWN = Estimate(NAN, NAN, NAN, NAN, 0)


class Finding(StrEnum):
    """What an effect came to on one data set with one network."""

    HOLDS = "holds"
    FAILS = "fails"
    UNCLEAR = "unclear"


class Verdict(StrEnum):
    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    DEPENDS = "it depends"
    INCONCLUSIVE = "inconclusive"
    NONE = "no verdict"


@dataclass(frozen=True)
class Observed:
    """The fresh runs of an arm. values: the measure by replicate. lacking: why other runs have no value, one each."""

    values: Mapping[Hashable, float]
    diverged: frozenset[Hashable] = frozenset()
    lacking: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """A claim on one data set with one network.

    missing: why nothing of it was run. guess: what a network that has learned nothing scores; None where that is not
    known, and for a measure by which nobody can say it. floor: the least variance of a value. overlap: what is added to
    1 / seeds in the variance of a mean.
    """

    name: str
    arms: Mapping[str, Observed]
    missing: str | None = None
    guess: float | None = None
    floor: float = 0.0
    overlap: float = 0.0

    @property
    def lacking(self) -> list[str]:
        """Why runs have no value, one each."""
        return [reason for arm in self.arms.values() for reason in arm.lacking]

    @property
    def complete(self) -> bool:
        return self.missing is None and bool(self.arms) and not self.lacking

    @property
    def seeds(self) -> int:
        """The fewest seeds that an arm has."""
        return min((len(arm.values) + len(arm.diverged) for arm in self.arms.values()), default=0)


@dataclass(frozen=True)
class Effect:
    """An effect in one pair. finding: None where the pair is not complete. diverged: how many runs of its arms did."""

    estimate: Estimate
    finding: Finding | None
    diverged: int


@dataclass(frozen=True)
class Judged:
    """effects: of each pair, the first one decides. lacks: why there is no verdict; empty where there is one."""

    verdict: Verdict
    effects: list[list[Effect]]
    lacks: list[str]


def judge(pairs: Sequence[Evidence], weights: Sequence[Mapping[str, float]], margin: float, least_seeds: int) -> Judged:
    """The verdict on a claim. weights: of each effect, by arm. margin: the smallest effect that counts, above 0."""
    effects = [[effect(evidence, each, margin) for each in weights] for evidence in pairs]
    lacks = _lacks(pairs, least_seeds)
    if lacks:
        return Judged(Verdict.NONE, effects, lacks)
    return Judged(verdict([first.estimate for first, *_ in effects], margin), effects, [])


def _lacks(pairs: Sequence[Evidence], least_seeds: int) -> list[str]:
    lacks = [f"{evidence.name} was not run: {evidence.missing}" for evidence in pairs if evidence.missing is not None]
    for evidence in pairs:
        counts = {reason: evidence.lacking.count(reason) for reason in dict.fromkeys(evidence.lacking)}
        if counts:
            lacks.append(f"fresh runs of {evidence.name}: {', '.join(f'{n} {reason}' for reason, n in counts.items())}")
        elif evidence.complete and evidence.seeds < least_seeds:
            lacks.append(f"{evidence.name} has {evidence.seeds} of the {least_seeds} seeds that the rule needs")
    if len(pairs) < PAIRS:
        lacks.append(f"the rule needs {PAIRS} pairs of a data set and a network, and here is {len(pairs)}")
    return lacks


def effect(evidence: Evidence, weights: Mapping[str, float], margin: float) -> Effect:
    """Σ weight · measure with its interval over seeds, each seed's runs against each other.

    A run that diverged counts as a network that has learned nothing, or as the worst finished run where that is worse.
    By a measure without such a value the effect is unclear.
    """
    if not evidence.complete:
        return Effect(UNKNOWN, None, 0)
    arms = {name: evidence.arms[name] for name, weight in weights.items() if weight}
    diverged = sum(len(arm.diverged) for arm in arms.values())
    if diverged and evidence.guess is None:
        return Effect(UNKNOWN, Finding.UNCLEAR, diverged)
    values = {name: filled(evidence, arm) for name, arm in arms.items()}
    shared = [seed for seed in next(iter(values.values())) if all(seed in own for own in values.values())]
    contrasts = [math.fsum(weights[name] * own[seed] for name, own in values.items()) for seed in shared]
    floor = evidence.floor * math.fsum(weight**2 for weight in weights.values())
    made = estimate(contrasts, floor, evidence.overlap)
    return Effect(made, finding(made, margin), diverged)


def filled(evidence: Evidence, arm: Observed) -> dict[Hashable, float]:
    """An arm's values, with what a lost run counts as for each that diverged; without these where nobody can say it."""
    if evidence.guess is None:
        return {**arm.values}
    worst = min([evidence.guess, *(value for each in evidence.arms.values() for value in each.values.values())])
    return {**arm.values, **dict.fromkeys(sorted(arm.diverged, key=repr), worst)}


def finding(effect: Estimate, margin: float) -> Finding:
    """What an effect shows. An interval that is not known shows nothing."""
    if effect.low > 0 and effect.mean >= margin:
        return Finding.HOLDS
    return Finding.FAILS if effect.high < margin else Finding.UNCLEAR


def verdict(effects: Sequence[Estimate], margin: float) -> Verdict:
    """The verdict by the deciding effect of each complete pair.

    Two pairs whose effects are alike may well lie on both sides of the margin by chance. So a claim depends on the pair
    only where the effects of two such pairs differ by more than noise.
    """
    findings = [finding(each, margin) for each in effects]
    if all(each is Finding.HOLDS for each in findings):
        return Verdict.SUPPORTED
    if all(each is Finding.FAILS for each in findings):
        return Verdict.CONTRADICTED
    holding, failing = (
        [effect for effect, each in zip(effects, findings, strict=True) if each is wanted]
        for wanted in (Finding.HOLDS, Finding.FAILS)
    )
    comparisons = len(effects) * (len(effects) - 1) // 2
    if any(_differ(*each, comparisons) for each in product(holding, failing)):
        return Verdict.DEPENDS
    return Verdict.INCONCLUSIVE


def _differ(one: Estimate, other: Estimate, comparisons: int) -> bool:
    """Whether two means differ by more than noise: Welch's t, by Bonferroni for so many comparisons."""
    variances = [_error(one) ** 2, _error(other) ** 2]
    total = sum(variances)
    if total == 0:
        return one.mean != other.mean
    spread = sum(v**2 / (each.count - 1) for v, each in zip(variances, (one, other), strict=True))
    t = abs(one.mean - other.mean) / math.sqrt(total)
    return 2 * float(stdtr(total**2 / spread, -t)) < (1 - CONFIDENCE) / comparisons


def _error(effect: Estimate) -> float:
    """The standard error that an interval was made with."""
    return (effect.high - effect.low) / 2 / float(stdtrit(effect.count - 1, (1 + CONFIDENCE) / 2))
