"""About the runs of a report: what was asked, when and on what machine."""

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from normlab.folder.identity import REPLICATES
from normlab.report.comparison import Comparison
from normlab.report.runs import Run, in_order, read_json, read_yaml
from normlab.report.settings import common, shortened, spelled

VALUES = 12  # how many values of a swept key are spelled out


def facts(folders: Sequence[Path], comparisons: Sequence[Comparison]) -> list[tuple[str, str]]:
    """(name, value) pairs for the page; what is not known is left out."""
    runs = [run for comparison in comparisons for run in comparison.runs]
    swept = _swept(comparisons)
    known = [
        ("swept", "; ".join(f"{key}: {_listed(values)}" for key, values in swept.items())),
        ("fixed", spelled(fixed) if (fixed := common(runs, list(swept))) else ""),
        *(("command", typed) for folder in folders if (typed := command(folder))),
        ("tags", tagged(runs)),
        ("runs", counted(runs)),
        ("always one class", "; ".join(filter(None, map(majority, comparisons)))),
        *machine(runs),
    ]
    return [(name, value) for name, value in known if value]


def tagged(runs: Sequence[Run]) -> str:
    """Each tag with the number of its runs, where it has not all of them."""
    counts = Counter(tag for run in runs for tag in run.tags)
    return ", ".join(tag if count == len(runs) else f"{tag} ({count} of {len(runs)})" for tag, count in counts.items())


def _swept(comparisons: Sequence[Comparison]) -> dict[str, list[str]]:
    """The values of each differing key, seeds last."""
    swept: dict[str, dict[str, None]] = {}
    for comparison in comparisons:
        for configuration in sorted(comparison.configurations, key=lambda c: in_order(c.runs[0].folder)):
            for key, value in (comparison.data | configuration.settings).items():
                swept.setdefault(key, {})[value] = None
    for comparison in comparisons:
        differing = comparison.replicates
        for run in comparison.runs:
            seeds = zip(REPLICATES, run.replicate, strict=True)
            for key, value in seeds:
                if key in differing:
                    swept.setdefault(key, {})[str(value)] = None
    return {key: list(values) for key, values in swept.items()}


def _listed(values: Sequence[str]) -> str:
    values = [shortened(value) for value in values]
    if len(values) <= VALUES:
        return ", ".join(values)
    return f"{len(values)} values, such as {', '.join(values[:3])}"


def command(folder: Path) -> str | None:
    """The command that was typed, with Hydra's own keys; they also say that it was a sweep."""
    hydra: Any = read_yaml(folder / "multirun.yaml").get("hydra")
    try:
        typed = [*hydra["overrides"]["task"], *hydra["overrides"]["hydra"]]
    except (TypeError, KeyError):
        return None
    return shlex.join(["python", "train.py", "-m", *(str(line) for line in typed if line != "hydra.mode=MULTIRUN")])


def counted(runs: Sequence[Run]) -> str:
    """How many runs there are of each status."""
    by_status = Counter(run.status for run in runs)
    return f"{len(runs)}: " + ", ".join(f"{count} {status}" for status, count in by_status.most_common())


def majority(comparison: Comparison) -> str:
    """What always guessing the most frequent class would score, as the first run that knows it says."""
    for run in comparison.runs:
        result = read_json(run.folder / "result.json")
        shares = result.get("majority") if isinstance(result, dict) else None
        if isinstance(shares, dict) and shares:
            words = ", ".join(f"{part}/acc {share:.4g}" for part, share in shares.items() if isinstance(share, float))
            return f"{spelled(comparison.data)}: {words}" if comparison.data else words
    return ""


def machine(runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """When the first run started, in which environment most of them ran, and at which commits."""
    starts = [entry for run in runs if isinstance(entry := _last(read_json(run.folder / "environment.json")), dict)]
    if not starts:
        return
    yield "date", str(min(str(entry.get("time", ""))[:16].replace("T", " ") for entry in starts))
    seen = Counter(described(entry) for entry in starts)
    most, _ = seen.most_common(1)[0]
    others = f"; {len(seen) - 1} other environments among the runs" if len(seen) > 1 else ""
    yield "environment", most + others
    commits = {(entry.get("git") or {}).get("commit", "")[:10] for entry in starts} - {""}
    dirty = any((entry.get("git") or {}).get("dirty") for entry in starts)
    if commits:
        yield "commit", ", ".join(sorted(commits)) + (" (with changes)" if dirty else "")


def described(entry: dict[str, Any]) -> str:
    """The versions and the device of a start, as environment.json has it."""
    packages = entry.get("packages") or {}
    versions = [f"{name} {packages[name]}" for name in ("normlab", "torch", "lightning") if name in packages]
    gpus = entry.get("gpus") or []
    device = ", ".join(gpus) if gpus else f"{entry.get('device', 'cpu')}, threads {entry.get('threads', '?')}"
    return ", ".join([f"Python {entry.get('python', '?')}", *versions, device])


def _last(starts: Any) -> Any:
    return starts[-1] if isinstance(starts, list) and starts else None
