"""The table of configurations, the best first."""

from normlab.report import wording
from normlab.report.comparison import Comparison, Configuration
from normlab.report.differences import Difference
from normlab.report.grid import Grid, Head
from normlab.report.settings import shortened

TESTS = 2  # test metrics that have a column


def configurations_grid(comparison: Comparison, name: str = "configurations") -> Grid:
    """A row for each configuration. name: unique on the page."""
    tests = comparison.tests[:TESTS]
    heads = [Head("rank", "mark"), *(Head(key, "key") for key in comparison.keys), Head(comparison.score_name, "score")]
    heads += [Head("95 % interval", "quiet"), Head("behind the best (95 %)", "pair-of")]
    heads += [*map(Head, [comparison.blocks.units, "lost runs", *tests, "seconds", "parameters"])]
    places = wording.decimals(comparison)
    rows = [_row(comparison, configuration, tests, places) for configuration in comparison.configurations]
    best = [place for place, configuration in enumerate(comparison.configurations) if configuration is comparison.best]
    return Grid(name, "configurations", heads, rows, best)


def _row(comparison: Comparison, configuration: Configuration, tests: list[str], places: int) -> list[str]:
    behind = configuration.behind
    return [
        wording.mark(comparison, configuration),
        *(shortened(configuration.settings[key], comparison.digits) for key in comparison.keys),
        wording.score(configuration.score, places),
        wording.interval(configuration.score, places),
        _behind(behind, places),
        str(configuration.score.count),
        _lost(configuration),
        *(wording.score(configuration.metric(name, comparison.blocks), places) for name in tests),
        wording.number(configuration.seconds, 1),
        wording.NOTHING if configuration.parameters is None else f"{configuration.parameters:,}",
    ]


def _behind(behind: Difference | None, places: int) -> str:
    """`0.016 (0.000 to 0.032)`."""
    if behind is None:
        return wording.NOTHING
    within = wording.interval(behind, places)
    return wording.number(behind.mean, places) + (f" ({within})" if within != wording.NOTHING else "")


def _lost(configuration: Configuration) -> str:
    """`2 of 5`, and how many runs have no score for another reason."""
    others = len([run for run in configuration.bad if not run.lost])
    return wording.lost(configuration) + (f", {others} without a score" if others else "")
