"""report.html of a fair sweep."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from normlab.report import wording
from normlab.report.all_runs import runs_grid
from normlab.report.chart import Chart
from normlab.report.curves import curves as learning_curves
from normlab.report.effects import effects
from normlab.report.failed import failures
from normlab.report.fair import charts, numbers, tables, words
from normlab.report.fair.searched import searched
from normlab.report.fair.small_print import small_print
from normlab.report.fair.space import numbers_of, shown_key
from normlab.report.fair.standing import Contest, ranked
from normlab.report.fair.sweep import FairSweep
from normlab.report.parallel import parallel
from normlab.report.render import Page, Placed
from normlab.report.scores import scores
from normlab.report.settings import spelled
from normlab.report.study_charts import study_charts

Place = Callable[[Chart | None], Placed | None]

POINTS_DEPEND = {
    "sampler": "the sampler chose points by the scores of earlier ones",
    "pruner": "trials were ended early by their scores",
    "budget": "the number of trials depends on how long they took",
}


def page(sweep: FairSweep, contests: Sequence[Contest], facts: Sequence[tuple[str, str]], place: Path) -> str:
    """The page's HTML, as it is to lie in the folder `place`. facts: (name, value) about the runs."""
    made = Page()
    across = ranked(contests)
    sections = [_section(sweep, contest, made.place) for contest in contests]
    title = words.across(contests) or (sections[0]["headline"] if sections else "No arm has run.")
    settings = sweep.with_settings
    tests = list(dict.fromkeys(contest.comparison.score_name for contest in contests))
    return made.html(
        "fair.html",
        title,
        sections=sections,
        across=words.across(contests),
        ranks=None if across is None else made.place(charts.critical_differences(*across)),
        refusals=words.refusals(sweep),
        marks=charts.MARKS,
        facts=facts,
        failures=failures(settings),
        runs=made.grid(runs_grid(settings, sweep.score, tests, place)) if settings else None,
        confirm=sweep.confirm,
        **_by_key(sweep, made.place),
    )


def _section(sweep: FairSweep, contest: Contest, place: Place) -> dict[str, Any]:
    """What the template says about one data set."""
    comparison, best = contest.comparison, contest.best
    panels = learning_curves(replace(comparison, score_name=sweep.score))
    return {
        "data": spelled(comparison.data) if comparison.data else None,
        "headline": words.headline(contest),
        "lead": list(words.lead(contest)),
        "quote": words.quote(sweep, contest),
        "fine": small_print(sweep, contest),
        "units": comparison.blocks.units,
        "score_name": comparison.score_name,
        "heads": tables.heads(sweep, contest),
        "rows": tables.rows(sweep, contest),
        "scores": place(scores(comparison)) if comparison.ranked else None,
        "tuning": None if sweep.confirm else _tuning(sweep, contest, place),
        "curves": panels
        and {
            "score": sweep.score,
            "panels": [(name, place(chart)) for name, chart in panels.charts],
            "behind": panels.behind,
            "heads": panels.heads,
            "rows": panels.rows,
        },
        "repeat": wording.repeat(best.configuration) if best else None,
    }


def _by_key(sweep: FairSweep, place: Place) -> dict[str, Any]:
    """The charts of all tuned keys, where there are several, and those of a search's study."""
    studies, missing = study_charts(sweep.folder) if sweep.confirm else ([], None)
    comparisons = searched(sweep)
    lines = [chart for each in comparisons if (chart := parallel(each)) is not None]
    return {
        "effects": [(key, caption, place(chart)) for each in comparisons for key, caption, chart in effects(each)],
        "parallels": [place(replace(chart, elsewhere="the table of all runs")) for chart in lines],
        "studies": [(title, caption, place(chart)) for title, caption, chart in studies],
        "missing": missing,
    }


def _tuning(sweep: FairSweep, contest: Contest, place: Place) -> dict[str, Any] | None:
    """What the template says about how hard the arms are to tune; None where no trial has ended."""
    key, standings = shown_key(sweep), contest.standings
    places = wording.decimals(contest.comparison)
    curves = numbers.curves(standings, key, places) if key is not None else []
    if key is None or not any(curve.known for curve in curves):
        return None
    spaces = [space for standing in standings if (space := numbers_of(standing.arm, key)) is not None]
    log = all(space.log for space in spaces)
    found = numbers.expectations(standings, sweep.minimized) if sweep.blind else {}
    drawn = {arm: values for arm, values in found.items() if len(values) > 1}
    return {
        "key": key,
        "score": sweep.score,
        "trials": place(charts.trials(curves, key, log, sweep.score, sweep.minimized)),
        "legend": [(curve.name, *look) for curve, *look in zip(curves, *charts.looks(len(curves)), strict=True)],
        "lines": all(curve.line for curve in curves),
        "expected": place(charts.expected(drawn, sweep.score, places)) if drawn else None,
        "turns": words.turns(drawn, sweep.minimized) if drawn else "",
        "undrawn": _undrawn(sweep),
        "heads": ["arm", "key", "range of good values", "trials within", "octaves, at least to at most"],
        "widths": _widths(contest, sweep.minimized),
    }


def _undrawn(sweep: FairSweep) -> str:
    """Why the expected best score is not drawn; empty where it is."""
    usual = {"sampler": "quasi_random", "pruner": "none", "budget": "trials"}
    reasons = [why for key, why in POINTS_DEPEND.items() if getattr(sweep, key) != usual[key]]
    return wording.listed(reasons) if reasons else ""


def _widths(contest: Contest, minimized: bool) -> list[list[str]]:
    rows = []
    for arm, (key, range_) in numbers.widths(contest.standings, minimized).items():
        low, high = range_.inner
        reach = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
        rows.append([arm, key, reach, f"{range_.good} of {range_.tried}", numbers.octaves(range_)])
    return rows
