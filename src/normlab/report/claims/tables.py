"""The tables of a laboratory's page, summary.csv and summary.md."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from normlab.report.claims import words
from normlab.report.claims.findings import Laboratory, Result, reached
from normlab.report.claims.verdict import Evidence, Observed
from normlab.report.fair.sweep import Arm
from normlab.report.tables import cell
from normlab.report.wording import NOTHING, interval, score

EFFECTS = ("effect", "pair", "mean", "95 % interval", "in margins", "finding")


def figures(lab: Laboratory) -> pd.DataFrame:
    """summary.csv: a row for each effect of a claim in each pair, in plain numbers."""
    return pd.DataFrame([row for result in lab.results for row in _figures(result)])


def _figures(result: Result) -> Iterator[dict[str, Any]]:
    for evidence, effects in zip(result.pairs, result.judged.effects, strict=True):
        for place, ((name, _), effect) in enumerate(zip(result.claim.effects, effects, strict=True)):
            yield {
                "claim": result.claim.name,
                "verdict": result.verdict.value,
                "pair": evidence.name,
                "effect": name,
                "decides": place == 0,
                "measure": result.claim.measure,
                "mean": effect.estimate.mean,
                "sd": effect.estimate.sd,
                "low": effect.estimate.low,
                "high": effect.estimate.high,
                "seeds": effect.estimate.count,
                "margin": result.claim.margin,
                "finding": effect.finding.value if effect.finding else "",
                "diverged": effect.diverged,
            }


def effects(result: Result) -> list[list[str]]:
    """A row for each effect in each pair; the first effect decides."""
    return [
        [name, evidence.name, *words.cells(result, own[place])]
        for place, (name, _) in enumerate(result.claim.effects)
        for evidence, own in zip(result.pairs, result.judged.effects, strict=True)
    ]


def arm_heads(result: Result) -> list[str]:
    return ["pair", "arm", "tuned", "runs", words.measure(result), "95 % interval", "diverged"]


def arms(lab: Laboratory, result: Result) -> list[list[str]]:
    """A row for each arm of each pair, with the numbers of its fresh runs' folders."""
    rows = []
    for pair, evidence in zip(result.claim.pairs, result.pairs, strict=True):
        for name, own in evidence.arms.items():
            rows.append([evidence.name, name, *_arm(result, evidence, own, name, lab.arms.get(pair.arms[name]))])
    return rows


def _arm(result: Result, evidence: Evidence, own: Observed, name: str, arm: Arm | None) -> list[str]:
    digits, estimate = words.places(result), reached(evidence, name)
    runs = len(own.values) + len(own.diverged)
    diverged = f"{len(own.diverged)} of {runs}"
    if own.diverged and arm is not None and not arm.fresh:
        diverged = f"in all {len(arm.trials)} trials"
    return [
        words.tuned(arm),
        NOTHING if arm is None else folders([run.folder.name for run in arm.fresh]),
        score(estimate, digits),
        interval(estimate, digits),
        diverged if runs else NOTHING,
    ]


def folders(names: Sequence[str]) -> str:
    """The names of run folders, those in a row by their ends: `12–23, 40`."""
    if not all(name.isdecimal() for name in names):
        return ", ".join(names) or NOTHING
    spans: list[list[int]] = []
    for number_ in sorted(map(int, names)):
        if spans and number_ == spans[-1][-1] + 1:
            spans[-1] = [spans[-1][0], number_]
        else:
            spans.append([number_])
    return ", ".join("–".join(map(str, span)) for span in spans) or NOTHING


def markdown(lab: Laboratory, facts: Sequence[tuple[str, str]]) -> str:
    """summary.md: what the page says, without its charts."""
    parts = [f"# {cell(words.title(lab))}", *map(cell, words.unfinished(lab))]
    parts.append("\n".join(f"- {name}: {cell(value)}" for name, value in facts))
    verdicts = [[each.claim.claim, f"**{each.verdict.value}**", words.why(each)] for each in lab.results]
    parts.append(_table(["claim", "verdict", "why"], verdicts))
    for result in lab.results:
        parts += _section(lab, result)
    return "\n\n".join(parts) + "\n"


def _section(lab: Laboratory, result: Result) -> Iterator[str]:
    claim = result.claim
    yield f"## {cell(claim.claim)}"
    yield f"**{result.verdict.value}** {cell(words.why(result))}"
    yield f"The design: {cell(claim.design)}"
    yield f"Measured is the {cell(words.measure(result))}: {cell(words.meaning(result))}"
    yield _table(list(EFFECTS), effects(result))
    yield _table(arm_heads(result), arms(lab, result))
    yield "The rule, written before the runs:\n\n" + _list(words.rule(result))
    if claim.literature:
        yield "What the literature says:\n\n" + _list(claim.literature)
    if claim.dissent:
        yield "Dissent:\n\n" + _list(claim.dissent)
    if claim.anchors:
        anchors = [[each.source, each.figure, words.ours(result, each.ours)] for each in claim.anchors]
        yield _table(["source", "published", "ours"], anchors)


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {cell(line)}" for line in lines)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)
