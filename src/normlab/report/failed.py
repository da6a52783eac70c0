"""Runs without a score, grouped by the reason."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from normlab.folder.place import shown
from normlab.report.comparison import counts
from normlab.report.runs import Run
from normlab.report.settings import Settings, spelled
from normlab.report.wording import reason


@dataclass(frozen=True)
class Failure:
    """Runs that ended alike. reason: the first one's. shared: settings that they all have, and not all others."""

    status: str
    reason: str
    runs: list[Run]
    shared: Settings

    @property
    def folders(self) -> list[str]:
        return [str(shown(run.folder.absolute())) for run in self.runs]

    @property
    def in_common(self) -> str:
        """The shared settings, as they are typed."""
        return spelled(self.shared) if self.shared else ""

    def where(self, most: int) -> str:
        """The runs' folders, at most so many of them."""
        named, others = ", ".join(self.folders[:most]), len(self.runs) - most
        return named if others <= 0 else f"{named} and {others} more"


def failures(settings: Sequence[tuple[Run, Settings]]) -> list[Failure]:
    """Those of some runs whose score does not count, with the most frequent reason first. settings: what differs.

    Two reasons are one where they differ in numbers or in the runs' own folders alone.
    """
    groups: dict[tuple[str, str], list[tuple[Run, Settings]]] = {}
    for run, own in settings:
        if not counts(run):
            groups.setdefault((_status(run), _kind(run)), []).append((run, own))
    found = [
        Failure(status, reason(members[0][0]), [run for run, _ in members], _shared(members, settings))
        for (status, _), members in groups.items()
    ]
    return sorted(found, key=lambda failure: -len(failure.runs))


def _kind(run: Run) -> str:
    """A run's reason without what is its own."""
    return re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "#", reason(run).replace(str(run.folder), ""))


def _shared(members: Sequence[tuple[Run, Settings]], every: Sequence[tuple[Run, Settings]]) -> Settings:
    if len(members) < 2:
        return {}
    alike = set.intersection(*(set(settings.items()) for _, settings in members))
    return {key: value for key, value in members[0][1].items()
            if (key, value) in alike and any(settings[key] != value for _, settings in every)}  # fmt: skip


def _status(run: Run) -> str:
    return "no score" if run.status == "finished" else run.status
