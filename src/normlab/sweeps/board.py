"""How the jobs of a sweep stand, read from their run folders."""

from collections.abc import Collection, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from normlab.folder.files import known_result
from normlab.folder.identity import REPLICATES

FAILED = ("failed", "refused")
ENDED = ("finished", "pruned", *FAILED)


class Board:
    """The results of a sweep's jobs, by the number of their folder; `look` reads the results that have changed.

    path: the sweep's folder. keys: the keys that the jobs differ in. numbers: the folders that count; None: all.
    """

    def __init__(self, path: Path, keys: Collection[str], numbers: Collection[int] | None):
        self.path, self.keys = path, set(keys)
        self.numbers = None if numbers is None else set(numbers)
        self.compared: set[int] | None = None  # the jobs among which `best` looks; None: all
        self.results: dict[int, dict[str, Any]] = {}
        self.stamps: dict[int, int] = {}  # when each result was written, in ns; 0: not yet
        self.look()
        self.before = dict(self.stamps)

    def look(self) -> list[int]:
        """The jobs whose result has changed since the last look."""
        changed = []
        for number, path in self._folders():
            stamp = _stamp(path / "result.json")
            if self.stamps.get(number) != stamp:
                self.stamps[number], self.results[number] = stamp, known_result(path)
                changed.append(number)
        return changed

    def status(self, number: int) -> str | None:
        """The status in a job's result.json; None before there is one."""
        return self.results.get(number, {}).get("status")

    def is_new(self, number: int) -> bool:
        """Whether a job was begun since the first look; a killed process may have left an older result."""
        return self.stamps.get(number) != self.before.get(number)

    def running(self) -> list[int]:
        return [n for n in self.results if self.is_new(n) and self.status(n) in ("running", None)]

    def count(self, *statuses: str) -> int:
        return sum(self.status(number) in statuses for number in self.results)

    def best(self) -> str:
        """The best score and the values that gave it, in words; empty where scores cannot be compared.

        In a sweep over seeds it is the best mean over seeds, among the configurations that have run most seeds.
        """
        among = self.results.keys() if self.compared is None else self.results.keys() & self.compared
        finished = {n: self.results[n] for n in sorted(among) if self.status(n) == "finished"}
        scored = {number: result for number, result in finished.items() if result["score"] is not None}
        kinds = {(result["score_name"], result["score_mode"]) for result in scored.values()}
        if len(kinds) != 1:
            return ""
        ((name, mode),) = kinds
        alike: dict[Any, list[int]] = {}
        for number in scored:
            alike.setdefault(self.chosen(number, REPLICATES) if self.keys & {*REPLICATES} else number, []).append(
                number
            )
        most = max(map(len, alike.values()))
        means = {
            numbers[0]: fmean(scored[number]["score"] for number in numbers)
            for numbers in alike.values()
            if len(numbers) == most
        }
        best = (max if mode == "max" else min)(means, key=lambda number: means[number])
        chosen = self.chosen(best) if most == 1 else f"{self.chosen(best, REPLICATES)} (mean of {most})".strip()
        return f"best {name} {means[best]:.4g} {chosen}".strip()

    def chosen(self, number: int, but: Collection[str] = ()) -> str:
        """A job's overrides of the keys that the jobs differ in, without the keys in `but`."""
        overrides = self.results.get(number, {}).get("overrides", [])
        return " ".join(line for line in overrides if line.partition("=")[0] in self.keys.difference(but))

    def name(self, number: int) -> str:
        return f"job {number}" + (f" ({chosen})" if (chosen := self.chosen(number)) else "")

    def _folders(self) -> Iterator[tuple[int, Path]]:
        for entry in self.path.iterdir():
            if entry.name.isdecimal() and (self.numbers is None or int(entry.name) in self.numbers):
                yield int(entry.name), entry


def _stamp(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
