"""The answer in words: what the page opens with, and the terminal."""

import math
import shlex
from collections.abc import Iterator

from normlab.folder import shown
from normlab.report.compare import Comparison, Configuration, counts
from normlab.report.runs import REPLICATES, Run
from normlab.report.settings import label, spelled
from normlab.report.statistics import Difference, Estimate

NOTHING = "–"


def decimals(comparison: Comparison) -> int:
    """So many that three digits of the differences between configurations show."""
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


def interval(found: Estimate | Difference | None, places: int) -> str:
    """`0.980 to 0.988`."""
    if found is None or math.isnan(found.low):
        return NOTHING
    return f"{number(found.low, places)} to {number(found.high, places)}"


def headline(comparison: Comparison) -> str:
    """Which one won."""
    best, places = comparison.best, decimals(comparison)
    if best is None:
        return "No run has a score yet."
    seeds = (
        f"mean\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}sd over {best.score.count} seeds"
        if best.score.count > 1
        else "one run"
    )
    result = f"{comparison.score_name} {score(best.score, places)} ({seeds})"
    if len(comparison.ranked) == 1:
        return f"{label(best.settings)}: {result}."
    reached = "the lowest" if comparison.minimized else "the highest"
    first = [label(c.settings) for c in comparison.ranked if c.score.mean == best.score.mean]
    if len(first) > 1:
        names = ", ".join(first[:-1]) + f" and {first[-1]}" if len(first) <= 4 else f"{len(first)} configurations"
        return f"{names} share {reached} {comparison.score_name}, {number(best.score.mean, places)}."
    return f"{label(best.settings)} has {reached} {result}."


def answer(comparison: Comparison) -> list[str]:
    """By how much it won and how sure that is, a sentence each."""
    if comparison.best is None:
        return []
    if len(comparison.ranked) == 1:
        return ["There is no other configuration with a score to compare it with."]
    return [*_lead(comparison), *_field(comparison), *_caveats(comparison)]


def _lead(comparison: Comparison) -> Iterator[str]:
    second, places = comparison.ranked[1], decimals(comparison)
    behind = second.behind
    assert behind is not None
    if second.score.mean == comparison.ranked[0].score.mean:
        yield "These runs do not tell them apart."
        return
    lead = f"It is {number(behind.mean, places)} ahead of the next, {label(second.settings)}"
    if not behind.known:
        yield f"{lead}."
        yield (
            "With one seed nothing is known about noise: another seed may turn the order round. "
            "Sweep seeds too, such as seed=1,2,3,4,5."
        )
        return
    how = (
        f"paired over the {behind.count} seeds that both have"
        if behind.paired
        else "by Welch's t: they share no two seeds"
    )
    yield f"{lead} (95 % interval of the difference {interval(behind, places)}, {how})."
    if behind.within_noise:
        yield "That is within noise: these runs do not tell the two apart."
    elif second.tied:
        yield (
            "That is more than noise for these two alone, but no longer once it is allowed for that "
            f"{len(comparison.ranked)} configurations were compared."
        )
    else:
        yield "That is more than noise."


def _field(comparison: Comparison) -> Iterator[str]:
    """How many of the others could be the best as well."""
    others = comparison.ranked[1:]
    tied = sum(c.tied for c in others)
    if len(others) < 2 or not any(c.behind and c.behind.known for c in others):
        return
    percent = f"{100 * comparison.confidence:.4g} %"
    yield (
        f"Of the {len(others)} others, {tied or 'none'} cannot be told from the best (≈): its {percent} interval holds "
        "zero; so wide that all of them hold together with 95 % (Bonferroni)."
    )


def _caveats(comparison: Comparison) -> Iterator[str]:
    seeds = comparison.best.score.count if comparison.best else 0
    if 1 < seeds < 5:
        yield f"All this rests on {seeds} seeds, which is few; sd and intervals are rough themselves."
    if "data.fold" in comparison.replicates:
        yield "Folds share most of their training data: intervals over folds are narrower than they should be."
    elif "data.split_seed" not in comparison.replicates and seeds > 1:
        yield "Seeds change the training, not the split of the data: the intervals say nothing about other data."
    if comparison.score_name.startswith("val/") and comparison.tests:
        yield (
            f"{comparison.score_name} is that of each run's best epoch, and the winner was picked by it, so it "
            "flatters; the test columns were not looked at for either."
        )
    if repeated := sum(c.repeated for c in comparison.configurations):
        yield f"{_count(repeated, 'run')} with the settings and the seed of another counted once."


def mark(comparison: Comparison, configuration: Configuration) -> str:
    """★ the best, ≈ what cannot be told from it."""
    return "★" if configuration is comparison.best else "≈" if configuration.tied else ""


def failures(runs: list[Run]) -> list[tuple[str, str, str]]:
    """(folder, status, reason) of each run whose score does not count."""
    return [(str(shown(run.folder.absolute())), _status(run), reason(run)) for run in runs if not counts(run)]


def reason(run: Run) -> str:
    """In one line, why a run has no score."""
    if run.error:
        return " ".join(run.error.split())
    told = {
        "unfinished": "still running, or killed",
        "pruned": "stopped early by the search: it did not look promising",
    }
    return told.get(run.status, "its score is not a number" if run.status == "finished" else "no reason was written")


def _status(run: Run) -> str:
    return "no score" if run.status == "finished" else run.status


def repeat(configuration: Configuration) -> str:
    """The command that runs a configuration again, with all its seeds."""
    typed = [line for line in configuration.runs[0].overrides if not _names_run(line)]
    known = {line.lstrip("+").partition("=")[0] for line in typed}
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


def terminal(comparisons: list[Comparison]) -> str:
    """The essence, a few lines."""
    lines = []
    for comparison in comparisons:
        lines += [f"{spelled(comparison.data)}:"] if comparison.data else []
        lines += [headline(comparison), *(list(_lead(comparison)) if len(comparison.ranked) > 1 else [])]
    bad = failures([run for comparison in comparisons for run in comparison.runs])
    if bad:
        lines.append(f"{_count(len(bad), 'run')} without a score:")
        lines += [f"  {folder} {status}: {why[:100]}" for folder, status, why in bad[:5]]
        lines += [f"  and {len(bad) - 5} more"] if len(bad) > 5 else []
    return "\n".join(lines)


def _count(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
