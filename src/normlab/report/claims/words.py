"""What a laboratory's page says in sentences; each figure in them is computed elsewhere."""

import math
import re
from collections.abc import Iterator, Sequence

from normlab.folder.measures import MEASURES
from normlab.report.claims.findings import Laboratory, Result, reached
from normlab.report.claims.measured import untrainable
from normlab.report.claims.verdict import PAIRS, Effect, Finding, Verdict
from normlab.report.fair.space import only_key
from normlab.report.fair.sweep import Arm, numbers
from normlab.report.fair.tuning import at_end
from normlab.report.fair.words import point
from normlab.report.wording import NOTHING, counted, interval, listed, number, score

COUNTED = {  # for one claim, and for several
    Verdict.SUPPORTED: ("is supported", "are supported"),
    Verdict.CONTRADICTED: ("is contradicted", "are contradicted"),
    Verdict.DEPENDS: ("depends on the data and the network", "depend on the data and the network"),
    Verdict.INCONCLUSIVE: ("is inconclusive", "are inconclusive"),
    Verdict.NONE: ("has no verdict", "have no verdict"),
}
ARE = {Finding.HOLDS: "there", Finding.FAILS: "smaller than the margin of {margin}", Finding.UNCLEAR: "unclear"}


def places(result: Result) -> int:
    """How many digits show a tenth of the margin."""
    return max(0, min(6, 1 - math.floor(math.log10(result.claim.margin))))


def margin(result: Result) -> str:
    return f"{result.claim.margin:.4g}"


def measure(result: Result) -> str:
    """What is measured, in few words."""
    known = MEASURES.get(result.claim.measure)
    return result.claim.measure if known is None else known.title


def meaning(result: Result) -> str:
    """What is measured, in a sentence."""
    known = MEASURES.get(result.claim.measure)
    return "" if known is None else known.meaning


def title(lab: Laboratory) -> str:
    """How many claims came out how."""
    if len(lab.results) == 1:
        (result,) = lab.results
        return f"“{result.claim.claim}” This {COUNTED[result.verdict][0]}."
    verdicts = [result.verdict for result in lab.results]
    counts = [(each, verdicts.count(each)) for each in Verdict if each in verdicts]
    if len(counts) == 1:
        return f"All {len(verdicts)} claims {COUNTED[verdicts[0]][1]}."
    said = [f"{count} {COUNTED[each][count > 1]}" for each, count in counts]
    return f"Of {len(verdicts)} claims {listed(said)}."


def why(result: Result) -> str:
    """The verdict's reason: what the deciding effect came to in each pair."""
    if result.verdict is Verdict.NONE:
        return f"There is no verdict on half a design: {'; '.join(result.judged.lacks)}."
    firsts = [(evidence.name, first) for evidence, (first, *_) in zip(result.pairs, result.judged.effects, strict=True)]
    groups = []
    for finding in Finding:
        if own := [f"{name} ({_figures(result, first)})" for name, first in firsts if first.finding is finding]:
            groups.append(f"{ARE[finding].format(margin=margin(result))} on {listed(own)}")
    findings = {first.finding for _, first in firsts}
    close = result.verdict is Verdict.INCONCLUSIVE and findings >= {Finding.HOLDS, Finding.FAILS}
    opposite = [name for name, first in firsts if first.estimate.high < 0]
    return (
        f"The effect is {'; it is '.join(groups)}."
        + (f" On {listed(opposite)} it is the opposite." if opposite else "")
        + (" Those pairs do not differ by more than noise." if close else "")
    )


def _figures(result: Result, effect: Effect) -> str:
    if effect.estimate.count == 0:
        return f"{counted(effect.diverged, 'run')} diverged"
    return f"{number(effect.estimate.mean, places(result))}, 95 % interval {interval(effect.estimate, places(result))}"


def named(effect: Effect) -> str:
    """A finding in a word or two."""
    if effect.finding is None:
        return NOTHING
    diverged = f", {counted(effect.diverged, 'run')} diverged" if effect.diverged else ""
    return ("opposite" if effect.estimate.high < 0 else effect.finding.value) + diverged


def cells(result: Result, effect: Effect) -> list[str]:
    """An effect in a row of a table: its mean, interval, mean in margins and finding."""
    digits, mean = places(result), effect.estimate.mean
    in_margins = number(mean / result.claim.margin, 1)
    return [number(mean, digits), interval(effect.estimate, digits), in_margins, named(effect)]


def rule(result: Result) -> list[str]:
    """The rule in plain words."""
    least, seeds = margin(result), result.claim.least_seeds
    comparisons = len(result.pairs) * (len(result.pairs) - 1) // 2
    corrected = f", corrected for {comparisons} comparisons" if comparisons > 1 else ""
    findings = (
        "The first effect decides. It holds on a pair of a data set and a network where its mean is at least "
        f"{least} and its 95 % interval lies above 0; it fails where the whole interval lies below {least} "
        "(opposite: below 0); otherwise it is unclear."
    )
    verdicts = (
        "Supported: it holds on every pair. Contradicted: it fails on every pair. It depends: it holds on one, fails "
        f"on another, and these two differ by more than noise (Welch’s t at 5 %{corrected}). Otherwise inconclusive."
    )
    none = (
        f"No verdict with a pair that was not run, fewer than {PAIRS} pairs, fewer than {seeds} seeds, or a fresh run "
        "that has neither ended nor diverged."
    )
    intervals = (
        "Each effect is taken seed by seed. Intervals are Student’s t over seeds, widened for what tuning by single "
        "trainings adds. A run that diverged counts as a network that always says the most frequent class; by a "
        "measure for which that means nothing, the pair is unclear. So do all runs of an arm whose trials, at least "
        f"{seeds}, all diverged."
    )
    errors = (
        "In simulations at most 5 % of claims without any effect are called supported, of those with twice the effect "
        "that counts contradicted, and of those with the same effect on every pair said to depend on it."
    )
    return [findings, verdicts, none, intervals, errors]


def ours(result: Result, sentence: str) -> str:
    """An anchor's sentence on our numbers, with those of each arm or effect that it names in braces."""
    return re.sub(r"\{([^{}]+)\}", lambda name: _numbers(result, name[1]) or name[0], sentence)


def _numbers(result: Result, name: str) -> str:
    digits = places(result)
    for place, (own, _) in enumerate(result.claim.effects):
        if own == name:
            effects = [effects[place] for effects in result.judged.effects]
            return _by_pair(result, [f"{number(each.estimate.mean, digits)}" for each in effects])
    if not any(name in evidence.arms for evidence in result.pairs):
        return ""
    estimates = [reached(evidence, name) if name in evidence.arms else None for evidence in result.pairs]
    return _by_pair(result, [NOTHING if each is None else score(each, digits) for each in estimates])


def _by_pair(result: Result, values: Sequence[str]) -> str:
    return listed([f"{value} ({evidence.name})" for evidence, value in zip(result.pairs, values, strict=True)])


def tuned(arm: Arm | None) -> str:
    """An arm's tuned setting, and whether it is at an end of what was tried: `lr=0.3, highest tried`."""
    if arm is None or arm.tuned is None:
        return NOTHING
    key = only_key(arm)
    end = "" if key is None else at_end(numbers(arm, key), float(arm.tuned.point[key]))
    return point(arm) + (f", {end} tried" if end else "")


def unfinished(lab: Laboratory) -> Iterator[str]:
    """What is still to come, of all claims together."""
    arms = [arm for arm in lab.sweep.arms if arm.refused is None and not untrainable(arm)]
    ended = sum(run.score is not None or run.lost for arm in arms for run in arm.fresh)
    if to_come := lab.sweep.seeds * len(arms) - ended:
        count = f"{counted(to_come, 'fresh run')} {'is' if to_come == 1 else 'are'}"
        yield f"The sweep is not at its end: {count} to come. The same command goes on."


def terminal(lab: Laboratory) -> str:
    """The answer for a terminal: a line for each claim."""
    lines = [title(lab)] if len(lab.results) > 1 else []
    lines += [f"{result.verdict.value}: {result.claim.claim} {why(result)}" for result in lab.results]
    return "\n".join([*lines, *unfinished(lab)])
