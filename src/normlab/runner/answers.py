"""What a network answers, written as it comes, so that there may be more samples than memory holds."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from normlab.data.common.targets import TargetColumn
from normlab.runner.inputs import Inputs
from normlab.runner.predictions import frame
from normlab.runner.spreadsheet import escaped

if TYPE_CHECKING:
    from pandas import DataFrame

ROWS = 2**14  # that are written at once
SHARES = 5  # how many classes the summary names
SHOWN = 3  # samples that a message names


class Answers(Callback):
    """Writes a row for each sample of action=predict as csv.

    write: takes text. escape: cells that a spreadsheet would run are written so that it does not.
    """

    def __init__(
        self, inputs: Inputs, columns: Sequence[TargetColumn], write: Callable[[str], object], escape: bool = False
    ):
        self.inputs, self.columns, self.write, self.escape = inputs, columns, write, escape
        self.held: list[tuple[Tensor, Tensor | None]] = []
        self.rows = 0
        self.types: dict[str, Any] = {}
        self.summaries = [Summary(column) for column in columns]
        self.bad, self.first_bad, self.cause = 0, list[str](), ""

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *of_batch: Any) -> None:
        answer, target, cause = outputs
        self.cause = self.cause or cause or ""
        known = self.inputs.has_targets  # own data may have samples alone
        self.held.append((answer.cpu(), target.cpu() if known and target is not None else None))
        if sum(len(answer) for answer, _ in self.held) >= ROWS:
            self.flush()

    def flush(self) -> None:
        """Writes what is held back."""
        if not self.held:
            return
        answers = torch.cat([answer for answer, _ in self.held])
        given = [target for _, target in self.held if target is not None]
        self.held.clear()
        samples, kept = self.inputs.called.take(len(answers))
        self._look(answers, samples)
        table = frame(answers, torch.cat(given) if given else None, samples, kept, self.columns)
        for summary in self.summaries:
            summary.add(table)
        self.types = self.types or {str(name): str(table[name].dtype) for name in table}
        shown = escaped(table) if self.escape else table
        self.write(shown.to_csv(index=False, header=not self.rows))
        self.rows += len(table)

    def check_finite(self) -> None:
        """Raises FloatingPointError with the first samples that the network has answered with NaN or inf."""
        if self.bad:
            more = ", …" if self.bad > SHOWN else ""
            raise FloatingPointError(
                f"the network answers {self.bad} of {self.rows} samples with NaN or inf (sample "
                f"{', '.join(self.first_bad)}{more}): {self.cause}"
            )

    def _look(self, answers: Tensor, samples: Sequence[Any]) -> None:
        bad = torch.nonzero(~torch.isfinite(answers).all(1)).flatten().tolist()
        self.bad += len(bad)
        self.first_bad += [str(samples[place]) for place in bad[: SHOWN - len(self.first_bad)]]


class Summary:
    """What is predicted of a column of the target, in a few words."""

    def __init__(self, column: TargetColumn):
        self.column = column
        self.counts: Counter[str] = Counter()
        self.low, self.high, self.sum, self.samples = float("inf"), float("-inf"), 0.0, 0

    def add(self, table: "DataFrame") -> None:
        predicted: Any = table[self.column.key("prediction")]
        self.samples += len(predicted)
        if self.column.classes:
            self.counts.update(predicted.tolist())
            return
        self.low, self.high = min(self.low, predicted.min()), max(self.high, predicted.max())
        self.sum += predicted.astype("float64").sum()

    def words(self) -> str:
        """The shares of the predicted classes, the largest first, or the predicted range."""
        named = f"{self.column.key('prediction')} " if self.column.name or not self.column.classes else ""
        return named + (self._shares() if self.column.classes else self._range())

    def _shares(self) -> str:
        largest = [f"{name} {count / self.samples:.1%}" for name, count in self.counts.most_common(SHARES)]
        return ", ".join(largest) + (f" and {len(self.counts) - SHARES} more" if len(self.counts) > SHARES else "")

    def _range(self) -> str:
        return f"{self.low:.4g} to {self.high:.4g}, mean {self.sum / self.samples:.4g}"


@dataclass(frozen=True)
class Written:
    """A table of predictions on the disk, and the types of its columns."""

    file: Path
    types: dict[str, Any] = field(default_factory=dict)

    def read(self) -> "DataFrame":
        """The table as it was written; texts stay texts, whatever they look like."""
        from pandas import read_csv

        types: Any = {name: str for name, kind in self.types.items() if kind in ("object", "str", "string")}
        types |= {name: kind for name, kind in self.types.items() if kind.startswith("float")}
        # A class may be called NA or None.
        return read_csv(self.file, dtype=types, keep_default_na=False, na_values=[""], low_memory=False)
