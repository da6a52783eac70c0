"""summary.csv and summary.md of a fair sweep."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from normlab.report.failed import failures
from normlab.report.fair import words
from normlab.report.fair.small_print import small_print
from normlab.report.fair.standing import Contest, Standing
from normlab.report.fair.sweep import FairSweep
from normlab.report.settings import spelled
from normlab.report.tables import cell, without_score
from normlab.report.wording import NOTHING, decimals, interval, number, repeat, score

LAST = ("lost (95 %)", "lost trials", "seconds")  # the last columns


def table(contests: Sequence[Contest]) -> pd.DataFrame:
    """summary.csv: a row an arm, the best of each data set first, in plain numbers."""
    return pd.DataFrame([_figures(contest, standing) for contest in contests for standing in contest.standings])


def _figures(contest: Contest, standing: Standing) -> dict[str, Any]:
    comparison, configuration, tuned = contest.comparison, standing.configuration, standing.arm.tuned
    behind = configuration.behind
    return {
        **comparison.data,
        **configuration.settings,
        **{f"tuned {key}": value for key, value in (tuned.point if tuned else {}).items()},
        comparison.score_name: configuration.score.mean,
        "sd": configuration.score.sd,
        "low": configuration.score.low,
        "high": configuration.score.high,
        "letters": standing.letters,
        "behind_best": 0.0 if configuration in comparison.first else behind.mean if behind else None,
        "behind_low": behind.low if behind else None,
        "behind_high": behind.high if behind else None,
        "fresh_runs": configuration.score.count,
        "fresh_lost": len(configuration.lost),
        "lost_rate": standing.diverged.value,
        "lost_low": standing.diverged.low,
        "lost_high": standing.diverged.high,
        "trials": len(standing.arm.trials),
        "trials_lost": standing.lost_trials,
        "seconds": standing.seconds,
        "tuning_seconds": standing.tuning_seconds,
    }


def heads(sweep: FairSweep, contest: Contest) -> list[str]:
    """What the columns of `rows` are called."""
    comparison = contest.comparison
    second = f"{sweep.score} in the search" if sweep.confirm else "tuned"
    units = f"fresh {comparison.blocks.units}"
    return ["arm", second, comparison.score_name, "95 % interval", "letters", units, *LAST]


def rows(sweep: FairSweep, contest: Contest) -> list[list[str]]:
    """The table of the arms in words, the best first."""
    return [_row(sweep, contest, standing) for standing in contest.standings]


def _row(sweep: FairSweep, contest: Contest, standing: Standing) -> list[str]:
    configuration, places = standing.configuration, decimals(contest.comparison)
    tuned = standing.arm.tuned
    searched = tuned.run.score if tuned is not None and tuned.run is not None else None
    return [
        configuration.label,
        number(searched, places) if sweep.confirm else words.point(standing.arm),
        score(configuration.score, places),
        interval(configuration.score, places),
        standing.letters or ("†" if configuration.lost and configuration.scores else NOTHING),
        str(configuration.score.count),
        words.diverged(standing),
        f"{standing.lost_trials} of {len(standing.arm.trials)}",
        number(standing.seconds, 1),
    ]


def markdown(sweep: FairSweep, contests: Sequence[Contest], facts: Sequence[tuple[str, str]]) -> str:
    """summary.md: for a terminal or a pull request."""
    parts = ["# Fair sweep", "\n".join(f"- {name}: {cell(value)}" for name, value in facts)]
    parts += ["\n".join(f"- {cell(line)}" for line in words.refusals(sweep))] if words.refusals(sweep) else []
    if (across := words.across(contests)) is not None:
        parts.append(f"**{cell(across)}**")
    for contest in contests:
        parts += [f"## {spelled(contest.comparison.data)}"] if contest.comparison.data else []
        parts.append(f"**{cell(words.headline(contest))}** {cell(' '.join(words.lead(contest)))}".strip())
        names = heads(sweep, contest)
        lines = [names, ["---"] * len(names), *rows(sweep, contest)]
        parts.append("\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines))
        parts += [f"> {cell(quote)}"] if (quote := words.quote(sweep, contest)) else []
        parts.append("\n".join(f"- {cell(line)}" for line in small_print(sweep, contest)))
        if contest.best is not None:
            parts.append(f"The best again:\n\n```sh\n{repeat(contest.best.configuration)}\n```")
    parts += without_score(failures(sweep.with_settings))
    return "\n\n".join(parts) + "\n"
