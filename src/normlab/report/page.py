"""report.html: a single file that a browser shows without a network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from normlab.report import wording
from normlab.report.all_runs import runs_grid
from normlab.report.answer import caveats, lead
from normlab.report.comparison import Comparison, with_settings
from normlab.report.configurations import configurations_grid
from normlab.report.curves import curves
from normlab.report.effects import effects
from normlab.report.failed import failures
from normlab.report.parallel import parallel
from normlab.report.render import Page
from normlab.report.scores import drawn, scores
from normlab.report.settings import spelled
from normlab.report.study_charts import study_charts


def page(
    comparisons: Sequence[Comparison], facts: Sequence[tuple[str, str]], searches: Sequence[Path], place: Path
) -> tuple[Page, str]:
    """The page and its HTML, as it is to lie in the folder `place`.

    facts: (name, value) about the runs. searches: the folders of sweeps, which may hold a study.
    """
    made = Page()
    sections = [_section(comparison, made, number) for number, comparison in enumerate(comparisons, 1)]
    studies, missing = [], []
    for folder in searches:
        charts_of_study, left_out = study_charts(folder)
        studies += [(title, caption, made.place(chart)) for title, caption, chart in charts_of_study]
        missing += [left_out] if left_out else []
    settings = with_settings(comparisons)
    tests = list(dict.fromkeys(name for comparison in comparisons for name in comparison.tests[:1]))
    html = made.html(
        "page.html",
        sections[0]["headline"],
        sections=sections,
        facts=facts,
        runs=made.grid(runs_grid(settings, comparisons[0].score_name, tests, place)),
        failures=failures(settings),
        studies=studies,
        missing=missing,
    )
    return made, html


def _section(comparison: Comparison, made: Page, number: int) -> dict[str, Any]:
    """What the template says about one data set, the `number`-th."""
    best, panels = comparison.best, curves(comparison)
    name = "configurations" if number == 1 else f"configurations-{number}"
    return {
        "data": spelled(comparison.data) if comparison.data else None,
        "headline": wording.headline(comparison),
        "lead": [*lead(comparison)],
        "caveats": caveats(comparison),
        "units": comparison.blocks.units,
        "score_name": comparison.score_name,
        "repeated": any(c.score.count > 1 for c in comparison.configurations),
        "grid": made.grid(configurations_grid(comparison, name)),
        "scores": made.place(scores(comparison)) if comparison.ranked else None,
        "undrawn": _undrawn(comparison),
        "curves": panels and {
            "panels": [(label, made.place(chart)) for label, chart in panels.charts],
            "behind": panels.behind,
            "heads": panels.heads,
            "rows": panels.rows,
        },
        "searched": comparison.searched,
        "effects": [(key, caption, made.place(chart)) for key, caption, chart in effects(comparison)],
        "parallel": made.place(parallel(comparison)),
        "repeat": wording.repeat(best) if best else None,
    }  # fmt: skip


def _undrawn(comparison: Comparison) -> str:
    shown, places = {id(configuration) for configuration in drawn(comparison)}, wording.decimals(comparison)
    others = [c for c in comparison.ranked if id(c) not in shown]
    if len(others) > 3:
        return f"{len(others)} others, further off"
    return ", ".join(f"{c.label} ({wording.score(c.score, places)})" for c in others)
