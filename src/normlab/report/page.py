"""report.html: a single file that a browser shows without a network."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from normlab.report import wording
from normlab.report.answer import answer
from normlab.report.compare import Comparison
from normlab.report.curves import curves
from normlab.report.effects import effects
from normlab.report.render import Page
from normlab.report.runs import Run
from normlab.report.scores import drawn, scores
from normlab.report.settings import shortened, spelled
from normlab.report.study_charts import study_charts

ROWS = 100  # the most that a table shows; summary.csv has all


def page(
    comparisons: Sequence[Comparison], facts: Sequence[tuple[str, str]], searches: Sequence[Path], place: Path
) -> str:
    """The page's HTML, as it is to lie in the folder `place`.

    facts: (name, value) about the runs. searches: the folders of sweeps, which may hold a study.
    """
    made = Page()
    sections = [_section(comparison, made.place, place) for comparison in comparisons]
    studies, missing = [], []
    for folder in searches:
        charts_of_study, left_out = study_charts(folder)
        studies += [(title, caption, made.place(chart)) for title, caption, chart in charts_of_study]
        missing += [left_out] if left_out else []
    title = sections[0]["headline"]
    return made.html("page.html", title, sections=sections, facts=facts, studies=studies, missing=missing)


def _section(comparison: Comparison, place: Any, folder: Path) -> dict[str, Any]:
    """What the template says about one data set. folder: where the page is to lie."""
    best, places = comparison.best, wording.decimals(comparison)
    tests = comparison.tests[:2]
    panels = curves(comparison)
    rows = [
        _row(comparison, c, places, tests) | {"pages": _pages(c.runs, folder)} for c in comparison.configurations[:ROWS]
    ]
    return {
        "data": spelled(comparison.data) if comparison.data else None,
        "headline": wording.headline(comparison),
        "answer": answer(comparison),
        "units": comparison.blocks.units,
        "unit": comparison.blocks.unit,
        "paired": comparison.paired,
        "score_name": comparison.score_name,
        "keys": comparison.keys,
        "tests": tests,
        "rows": rows,
        "paged": any(row["pages"] for row in rows),
        "repeated": any("±" in row["score"] for row in rows),
        "hidden": max(0, len(comparison.configurations) - ROWS),
        "scores": place(scores(comparison)) if best else None,
        "undrawn": _undrawn(comparison, places),
        "curves": panels
        and {
            "panels": [(name, place(chart)) for name, chart in panels.charts],
            "behind": panels.behind,
            "heads": panels.heads,
            "rows": panels.rows,
        },
        "searched": comparison.searched,
        "effects": [(key, caption, place(chart)) for key, caption, chart in effects(comparison)],
        "repeat": wording.repeat(best) if best else None,
        "best": best.label if best else None,
        "failures": wording.failures(comparison.runs),
    }


def _undrawn(comparison: Comparison, places: int) -> str:
    shown = {id(configuration) for configuration in drawn(comparison)}
    others = [c for c in comparison.ranked if id(c) not in shown]
    if len(others) > 3:
        return f"{len(others)} others, further off"
    return ", ".join(f"{c.label} ({wording.score(c.score, places)})" for c in others)


def _row(comparison: Comparison, configuration: Any, places: int, tests: list[str]) -> dict[str, Any]:
    bad = configuration.bad
    return {
        "mark": wording.mark(comparison, configuration),
        "values": [shortened(configuration.settings[key], comparison.digits) for key in comparison.keys],
        "score": wording.score(configuration.score, places),
        "interval": wording.interval(configuration.score, places),
        "behind": wording.number(configuration.behind.mean, places) if configuration.behind else wording.NOTHING,
        "behind_interval": wording.interval(configuration.behind, places),
        "count": configuration.score.count,
        "lost": wording.lost(configuration),
        "bad": len(bad),
        "reasons": "; ".join(dict.fromkeys(f"{run.status}: {wording.reason(run)}" for run in bad)),
        "tests": [wording.score(configuration.metric(name, comparison.blocks), places) for name in tests],
        "seconds": wording.number(configuration.seconds, 1),
        "parameters": wording.NOTHING if configuration.parameters is None else f"{configuration.parameters:,}",
    }


def _pages(runs: Sequence[Run], folder: Path) -> list[tuple[str, str]]:
    """The name of each run that has a page of its own, and where that lies as seen from a folder."""
    files = [(run.folder.name, run.folder.absolute() / "report.html") for run in runs]
    there = [(name, file) for name, file in files if file.is_file() and file.parent != folder.absolute()]
    return [(name, quote(os.path.relpath(file, folder.absolute()))) for name, file in there]
