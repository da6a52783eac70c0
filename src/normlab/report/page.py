"""report.html: a single file that a browser shows without a network."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader

from normlab.report import wording
from normlab.report.answer import answer
from normlab.report.charts import COLOURED, DASHES, PALETTE, Spec, drawn, scores
from normlab.report.compare import Comparison
from normlab.report.curves import curves
from normlab.report.effects import effects
from normlab.report.settings import label, shortened, spelled
from normlab.report.study_charts import study_charts

ROWS = 100  # the most that a table shows; summary.csv has all


def page(comparisons: Sequence[Comparison], facts: Sequence[tuple[str, str]], searches: Sequence[Path]) -> str:
    """The page's HTML. facts: (name, value) about the runs; searches: the folders of sweeps, which may hold a study."""
    charts: list[Spec] = []

    def place(chart: Spec | None) -> int | None:
        """Puts a chart on the page, and returns its number there."""
        if chart is None:
            return None
        charts.append(chart)
        return len(charts) - 1

    sections = [_section(comparison, place) for comparison in comparisons]
    studies, missing = [], []
    for folder in searches:
        charts_of_study, left_out = study_charts(folder)
        studies += [(title, caption, place(chart)) for title, caption, chart in charts_of_study]
        missing += [left_out] if left_out else []
    here = Path(__file__).parent
    environment = Environment(loader=FileSystemLoader(here), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("page.html").render(
        sections=sections,
        facts=facts,
        studies=studies,
        missing=missing,
        style=(here / "page.css").read_text(),
        library=vl_convert.javascript_bundle(),  # pyright: ignore[reportCallIssue]  # its stub asks for more than it does
        charts=json.dumps(charts, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c"),
    )


def _section(comparison: Comparison, place: Any) -> dict[str, Any]:
    """What the template says about one data set."""
    best, places = comparison.best, wording.decimals(comparison)
    tests = comparison.tests[:2]
    shown = comparison.configurations[:COLOURED]
    rows = [_row(comparison, c, places, tests) for c in comparison.configurations[:ROWS]]
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
        "repeated": any("±" in row["score"] for row in rows),
        "hidden": max(0, len(comparison.configurations) - ROWS),
        "scores": place(scores(comparison)) if best else None,
        "undrawn": _undrawn(comparison, places),
        "curves": place(curves(comparison)),
        "legend": [(label(c.settings), *look) for c, *look in zip(shown, PALETTE, map(_dash, DASHES), strict=False)],
        "grey": len(comparison.configurations) > COLOURED,
        "searched": comparison.searched,
        "effects": [(key, caption, place(chart)) for key, caption, chart in effects(comparison)],
        "repeat": wording.repeat(best) if best else None,
        "best": label(best.settings) if best else None,
        "failures": wording.failures(comparison.runs),
    }


def _undrawn(comparison: Comparison, places: int) -> str:
    shown = {id(configuration) for configuration in drawn(comparison)}
    others = [c for c in comparison.ranked if id(c) not in shown]
    if len(others) > 3:
        return f"{len(others)} others, further off"
    return ", ".join(f"{label(c.settings)} ({wording.score(c.score, places)})" for c in others)


def _row(comparison: Comparison, configuration: Any, places: int, tests: list[str]) -> dict[str, Any]:
    bad = configuration.bad
    return {
        "mark": wording.mark(comparison, configuration),
        "values": [shortened(configuration.settings[key]) for key in comparison.keys],
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


def _dash(dash: list[int]) -> str:
    return " ".join(map(str, dash)) if dash[1] else "none"
