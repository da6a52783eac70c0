"""A table that a reader sorts, filters and extends. Its first rows are HTML, all of them are data of a script."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

FIRST = 25  # rows that are there without a script

Link = tuple[str, str]  # a name, and an address as seen from the page
Cell = str | list[Link]


@dataclass(frozen=True)
class Head:
    """A column. kind: what it is styled as; "key" and "mark" are words, all others are sorted as numbers."""

    name: str
    kind: str = ""


@dataclass(frozen=True)
class Grid:
    """A table. name: of its files, and unique on the page. what: its rows in words, such as "configurations".

    best: the places of the rows that stand out. first: how many rows are there without a script. configs: of runs, the
    keys in which their configurations differ and each run's values, see config_columns; a reader may then compare two.
    """

    name: str
    what: str
    heads: Sequence[Head]
    rows: Sequence[Sequence[Cell]]
    best: Sequence[int] = ()
    first: int = FIRST
    configs: dict[str, Any] = field(default_factory=dict)

    @property
    def content(self) -> dict[str, Any]:
        """What the script is given."""
        heads = [[head.name, head.kind] for head in self.heads]
        given = {"name": self.name, "what": self.what, "heads": heads, "rows": self.rows, "best": self.best}
        return given | {"first": self.first} | ({"configs": self.configs} if self.configs else {})


def config_columns(configs: Sequence[dict[str, str]]) -> dict[str, Any]:
    """The keys that differ, each with its values once, and for each configuration the places of its values."""
    keys = sorted({key for config in configs for key in config})
    columns = {}
    for key in keys:
        values = [config.get(key, "") for config in configs]
        places = {value: place for place, value in enumerate(dict.fromkeys(values))}
        if len(places) > 1:
            columns[key] = {"values": [*places], "of": [places[value] for value in values]}
    return columns
