"""A chart with its text alternative: no page draws what cannot be read on it as well."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Spec = dict[str, Any]  # Vega-Lite


@dataclass(frozen=True)
class Chart:
    """A drawing, and what it says to a reader who does not see it.

    name: what its files are called when it is exported. says: a sentence that a screen reader reads out in place of the
    drawing. heads, rows: the numbers, as a table that stands folded below the drawing; the first `text` columns are
    words. elsewhere: where on the page the numbers stand already, in place of rows, such as "the table below".
    """

    name: str
    drawing: Spec
    says: str
    heads: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    text: int = 1
    elsewhere: str = ""

    def __post_init__(self) -> None:
        assert self.says, f"{self.name} says nothing"
        assert bool(self.rows) != bool(self.elsewhere), f"{self.name}: where are its numbers?"

    @property
    def label(self) -> str:
        """What a screen reader says."""
        return f"{self.says} The numbers are in {self.elsewhere or 'the table below'}."
