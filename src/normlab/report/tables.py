"""summary.csv and summary.md."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from normlab.report.answer import answer
from normlab.report.comparison import Comparison, Configuration, with_settings
from normlab.report.failed import Failure, failures
from normlab.report.settings import spelled
from normlab.report.wording import (
    NOTHING,
    decimals,
    headline,
    interval,
    lost,
    lost_rate,
    mark,
    number,
    repeat,
    score,
)

FOLDERS = 20  # of runs without a score that are named


def table(comparison: Comparison) -> pd.DataFrame:
    """summary.csv: a row a configuration, the best first, in plain numbers."""
    first = comparison.first
    rows = [comparison.data | c.settings | _figures(comparison, c, c in first) for c in comparison.configurations]
    return pd.DataFrame(rows)


def _figures(comparison: Comparison, configuration: Configuration, is_first: bool) -> dict[str, Any]:
    own, behind = configuration.score, configuration.behind
    name = comparison.score_name
    return {
        name: own.mean,
        "sd": own.sd,
        "low": own.low,
        "high": own.high,
        comparison.blocks.units.replace(" ", "_"): own.count,
        "samples": comparison.samples,
        "behind_best": 0.0 if is_first else behind.mean if behind else None,
        "behind_low": behind.low if behind else None,
        "behind_high": behind.high if behind else None,
        "tied_with_best": is_first or (configuration.tied if behind else None),
        "runs": len(configuration.runs),
        "runs_without_score": len(configuration.bad),
        "lost_rate": lost_rate(configuration),
        **{test: configuration.metric(test, comparison.blocks).mean for test in comparison.tests},
        "seconds": configuration.seconds,
        "parameters": configuration.parameters,
    }


def markdown(comparisons: list[Comparison], facts: Sequence[tuple[str, str]]) -> str:
    """summary.md: for a terminal or a pull request."""
    parts = ["# Sweep report", "\n".join(f"- {name}: {cell(value)}" for name, value in facts)]
    for comparison in comparisons:
        parts += [f"## {spelled(comparison.data)}"] if comparison.data else []
        parts += [
            f"**{cell(headline(comparison))}** {cell(' '.join(answer(comparison)))}".strip(),
            _markdown_table(comparison),
        ]
        if comparison.best is not None:
            parts.append(f"The best again:\n\n```sh\n{repeat(comparison.best)}\n```")
    parts += without_score(failures(with_settings(comparisons)))
    return "\n\n".join(parts) + "\n"


def without_score(bad: Sequence[Failure]) -> list[str]:
    """A paragraph on the runs without a score, where there are any."""
    lines = [f"- {len(each.runs)} × {each.status}: {cell(each.reason)} (`{each.where(FOLDERS)}`)" for each in bad]
    return ["Without a score:\n\n" + "\n".join(lines)] if lines else []


def _markdown_table(comparison: Comparison) -> str:
    places, tests = decimals(comparison), comparison.tests[:2]
    units = comparison.blocks.units
    heads = ["", "configuration", comparison.score_name, "95 % interval", "behind the best", units, "lost runs", *tests]
    heads.append("seconds")
    lines = [" | ".join(heads), " | ".join("---" for _ in heads)]
    for c in comparison.configurations:
        cells = [
            mark(comparison, c),
            c.label,
            score(c.score, places),
            interval(c.score, places),
            number(c.behind.mean, places) if c.behind else NOTHING,
            str(c.score.count),
            lost(c),
            *(score(c.metric(name, comparison.blocks), places) for name in tests),
            number(c.seconds, 1),
        ]
        lines.append(" | ".join(map(cell, cells)))
    return "\n".join(f"| {line} |" for line in lines)


def cell(text: str) -> str:
    """Text that may stand in a table of Markdown."""
    return text.replace("|", "\\|").replace("<", "&lt;")
