"""New rows of a table, turned into samples by what a run has learned of its training file."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from normlab.data.common.portions import Portion
from normlab.data.tables.columns import Columns
from normlab.data.tables.messages import Unknown
from normlab.data.tables.preprocessing import Preprocessing
from normlab.data.tables.target import Target
from normlab.data.tables.values import Frame
from normlab.errors import ConfigError, Problems


@dataclass
class NewRows:
    """The rows of one file or frame. where: how refusals begin.

    target: None where the rows have none. keep: columns that predictions carry.
    """

    where: str
    columns: Columns
    preprocessing: Preprocessing
    target: Target | None = None
    keep: Sequence[str] = ()
    unknown: Unknown = field(default_factory=Unknown)

    def portion(self, frame: Frame) -> Portion:
        """Samples, called by the numbers of their rows from 1. Raises ConfigError with all that is wrong with them."""
        rows = y = None
        problems = Problems()
        with problems.gather():
            rows = self.columns.take(frame, self.where, "leave the cell empty")
        with problems.gather():
            y = None if self.target is None else self.target.take(frame, self.where)
        problems.check()
        assert rows is not None
        for column in self.preprocessing.categories:
            self.unknown.add(rows[column.name], column.values)
        check_kept(self.keep, frame, self.where)
        kept = {name: frame[name].tolist() for name in self.keep}
        return Portion(self.preprocessing.apply(rows, self.where), numbered(frame), y, kept)

    def tell(self) -> None:
        """Says which categories of all portions training has not seen."""
        self.unknown.tell(self.where)


def numbered(frame: Frame) -> list[str]:
    """Rows are called by their numbers, from 1."""
    return [str(number + 1) for number in frame.index]


def check_kept(keep: Sequence[str], frame: Frame, where: str) -> None:
    """Raises ConfigError where columns that predictions are to carry are not there."""
    if lacking := [name for name in keep if name not in frame]:
        raise ConfigError(f"{where}: these columns of data.keep are missing: {', '.join(lacking)}")
