"""Reads from a sweep's folder whether it was a search, and for which objectives."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from normlab.config.objectives import direction
from normlab.report.runs import Run, read_json, read_yaml

LOG = re.compile(r"\btag\(\s*log\b")


def is_search(runs: Sequence[Run]) -> bool:
    """Whether a search chose the values, at random or by the scores of earlier runs."""
    return any((folder / "study.db").is_file() for folder in _folders(runs))


def objectives(runs: Sequence[Run]) -> list[str]:
    """What a search raised or lowered; empty for a plain sweep."""
    by_folder = [_objectives(folder) for folder in _folders(runs)]
    return list(dict.fromkeys(name for names in by_folder for name in names))


def value(run: Run, objective: str) -> float | None:
    """What a finished run has reached, with a sign by which higher is better."""
    plain = {"score": run.score, "seconds": run.seconds, "parameters": run.parameters}
    reached = plain[objective] if objective in plain else run.metrics.get(objective)
    lowered = direction(objective, run.score_mode) == "minimize"
    return None if reached is None else float(-reached if lowered else reached)


def front(reached: Sequence[Sequence[float]]) -> list[bool]:
    """Whether each point is unbeaten: no other one is as good in everything and better in something."""

    def beats(one: Sequence[float], other: Sequence[float]) -> bool:
        return all(a >= b for a, b in zip(one, other, strict=True)) and list(one) != list(other)

    return [not any(beats(other, own) for other in reached) for own in reached]


def in_log(runs: Sequence[Run]) -> set[str]:
    """The keys that were searched in the logarithm of their values."""
    spaces = [space for folder in _folders(runs) for space in _spaces(folder)]
    return {key for space in spaces for key, values in space.items() if LOG.search(str(values))}


def _spaces(folder: Path) -> Iterator[dict[str, Any]]:
    """What a sweep's keys were given: as typed, by its yaml, and by the arms of a fair comparison."""
    hydra: Any = read_yaml(folder / "multirun.yaml").get("hydra")
    with suppress(KeyError, TypeError, ValueError):
        yield dict(line.split("=", 1) for line in map(str, hydra["overrides"]["task"]) if "=" in line)
        yield dict(hydra["sweeper"]["params"] or {})
    fair: Any = read_json(folder / "fair.json")
    with suppress(KeyError, TypeError, ValueError):
        yield from (dict(arm["space"]) for arm in fair["arms"])


def _folders(runs: Sequence[Run]) -> list[Path]:
    return list(dict.fromkeys(run.folder.parent for run in runs))


def _objectives(folder: Path) -> tuple[str, ...]:
    if not (folder / "study.db").is_file():
        return ()
    hydra: Any = read_yaml(folder / "multirun.yaml").get("hydra")
    try:
        return tuple(map(str, hydra["sweeper"]["objectives"]))
    except (KeyError, TypeError):
        return ()
