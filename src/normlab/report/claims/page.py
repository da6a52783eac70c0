"""report.html of a laboratory's sweep."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from normlab.report.all_runs import runs_grid
from normlab.report.claims import charts, tables, words
from normlab.report.claims.findings import Laboratory, Result
from normlab.report.claims.verdict import Verdict
from normlab.report.failed import failures
from normlab.report.fair.standing import tested_metric
from normlab.report.render import Page

CLASSES = {  # how a verdict is styled, besides being said
    Verdict.SUPPORTED: "good",
    Verdict.CONTRADICTED: "bad",
    Verdict.DEPENDS: "mixed",
    Verdict.INCONCLUSIVE: "open",
    Verdict.NONE: "open",
}


def page(lab: Laboratory, facts: Sequence[tuple[str, str]], place: Path) -> str:
    """The page's HTML, as it is to lie in the folder `place`. facts: (name, value) about the runs."""
    made = Page()
    settings = lab.sweep.with_settings
    overview = made.place(charts.overview(lab))
    return made.html(
        "claims.html",
        words.title(lab),
        unfinished=list(words.unfinished(lab)),
        overview=overview,
        facts=facts,
        claims=[_section(lab, result, made) for result in lab.results],
        failures=failures(settings),
        runs=made.grid(runs_grid(settings, lab.sweep.score, [tested_metric(lab.sweep.score)], place))
        if settings
        else None,
    )


def _section(lab: Laboratory, result: Result, made: Page) -> dict[str, Any]:
    """What the template says about one claim."""
    claim, measure = result.claim, words.measure(result)
    drawn = [(evidence, pair) for evidence, pair in zip(result.pairs, claim.pairs, strict=True) if evidence.arms]
    return {
        "name": claim.name,
        "claim": claim.claim,
        "verdict": result.verdict.value,
        "kind": CLASSES[result.verdict],
        "why": words.why(result),
        "decides": claim.effects[0][0],
        "design": claim.design,
        "measure": measure,
        "meaning": words.meaning(result),
        "figures": [
            (evidence.name, pair.settings, made.place(charts.arms(result, evidence, measure)))
            for evidence, pair in drawn
        ],
        "diverged": any(own.diverged for evidence, _ in drawn for own in evidence.arms.values()),
        "arm_heads": tables.arm_heads(result),
        "arms": _grouped(tables.arms(lab, result)),
        "effect_heads": tables.EFFECTS,
        "effects": _grouped(tables.effects(result)),
        "rule": words.rule(result),
        "literature": claim.literature,
        "dissent": claim.dissent,
        "anchors": [(each.source, each.figure, words.ours(result, each.ours)) for each in claim.anchors],
    }


def _grouped(rows: Sequence[Sequence[str]]) -> list[tuple[str, list[Sequence[str]]]]:
    """Rows by their first cells, which neighbours share; the rows without it."""
    return [(first, [row[1:] for row in own]) for first, own in groupby(rows, key=lambda row: row[0])]
