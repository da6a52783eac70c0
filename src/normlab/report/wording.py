"""Single words, numbers and commands of the report, and its headline."""

import math
import shlex
from collections.abc import Sequence

from normlab.folder.identity import REPLICATES
from normlab.report.comparison import Comparison, Configuration
from normlab.report.differences import Difference
from normlab.report.runs import Run
from normlab.report.statistics import Estimate

NOTHING = "–"


def decimals(comparison: Comparison) -> int:
    """How many digits let three digits of the differences between configurations show."""
    means = [configuration.score.mean for configuration in comparison.ranked]
    spans = [max(means) - min(means), *(c.score.sd for c in comparison.ranked)] if means else []
    known = [span for span in spans if span > 0]
    return max(0, min(6, 2 - math.floor(math.log10(max(known))))) if known else 4


def number(value: float | None, places: int) -> str:
    if value is None or math.isnan(value):
        return NOTHING
    text = f"{value:.{places}f}"
    return (text if float(text) else f"{0:.{places}f}").replace("-", "−")


def score(estimate: Estimate, places: int) -> str:
    """`0.984 ± 0.004`, on one line."""
    if estimate.count == 0:
        return NOTHING
    spread = f"\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{number(estimate.sd, places)}" if estimate.count > 1 else ""
    return number(estimate.mean, places) + spread


def interval(value: Estimate | Difference | None, places: int) -> str:
    """`0.980 to 0.988`."""
    if value is None or math.isnan(value.low):
        return NOTHING
    return f"{number(value.low, places)} to {number(value.high, places)}"


def headline(comparison: Comparison) -> str:
    """A sentence on which one won, with the score that it was picked by and the score on the test part."""
    first, places = comparison.first, decimals(comparison)
    if not first:
        return "No run has a score yet."
    means = number(first[0].score.mean, places)
    reached = "the lowest" if comparison.minimized else "the highest"
    if len(first) > 1:
        names = [c.label for c in first]
        winners = listed(names) if len(names) <= 4 else f"{len(names)} configurations"
        return f"{winners} share {reached} {comparison.score_name}, {means}{_of_epochs(comparison, means=False)}."
    best = first[0]
    verb = "is the only one with a" if len(comparison.ranked) == 1 else f"has {reached}"
    result = f"{comparison.score_name} {score(best.score, places)}{_of_epochs(comparison)}"
    tested = [f"{name} {score(best.metric(name, comparison.blocks), places)}" for name in comparison.tests[:1]]
    lost = f"; {len(best.lost)} of its {len(best.lost) + len(best.scores)} runs were lost" if best.lost else ""
    return f"{best.label} {verb} {result}{''.join(f', and {each}' for each in tested)}{lost}."


def _of_epochs(comparison: Comparison, means: bool = True) -> str:
    """What the winner's score was taken over, in brackets."""
    parts = []
    if comparison.score_name.startswith("val/"):
        parts.append(f"the {'minimum' if comparison.minimized else 'maximum'} over each run’s epochs")
    count = comparison.first[0].score.count
    if means:
        over = f"mean\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}sd over {count} {comparison.blocks.units}"
        parts.append(over if count > 1 else "one run")
    return f" ({', '.join(parts)})" if parts else ""


def mark(comparison: Comparison, configuration: Configuration) -> str:
    """★: the best. ≈: cannot be told from the best. †: has lost runs."""
    lost = "†" if configuration.lost and configuration.scores else ""
    return ("★" if configuration is comparison.best else "≈" if configuration.tied else "") + lost


def lost_rate(configuration: Configuration) -> float:
    """The share of a configuration's runs that were lost."""
    gone = len(configuration.lost)
    return gone / max(gone + len(configuration.scores), 1)


def lost(configuration: Configuration) -> str:
    """`2 of 5`, the runs that were lost."""
    gone = len(configuration.lost)
    return f"{gone} of {gone + len(configuration.scores)}" if gone else "0"


def reason(run: Run) -> str:
    """Why a run has no score, in one line."""
    if run.error:
        return " ".join(run.error.split())
    reasons = {
        "unfinished": "still running, or killed",
        "pruned": "stopped early by the search: it did not look promising",
    }
    return reasons.get(run.status, "its score is not a number" if run.status == "finished" else "no reason was written")


def repeat(configuration: Configuration) -> str:
    """The command that runs a configuration again, with all its seeds."""
    typed = [line for line in configuration.runs[0].overrides if not _names_run(line)]
    known = {line.lstrip("+").partition("=")[0] for line in typed}
    typed += ["sweep=grid"] if "experiment" in known else []  # in place of a sweep that the experiment chooses
    added = [f"{k}={v}" for k, v in configuration.settings.items() if k not in known and v not in ("default", "")]
    values = list(zip(*(run.replicate for run in configuration.runs), strict=True))
    sweeping = False
    for key, seen in zip(REPLICATES, values, strict=True):
        distinct = list(dict.fromkeys(seen))
        if len(distinct) > 1 or key in known:
            typed = [line for line in typed if line.lstrip("+").partition("=")[0] != key]
            added.append(f"{key}={','.join(map(str, distinct))}")
            sweeping |= len(distinct) > 1
    return shlex.join(["python", "train.py", *(["-m"] if sweeping else []), *typed, *added])


def _names_run(line: str) -> bool:
    key = line.lstrip("+~").partition("=")[0]
    return key in ("name", "action", "extend", "sweep") or key.startswith("hydra")


def counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + f" and {names[-1]}"
