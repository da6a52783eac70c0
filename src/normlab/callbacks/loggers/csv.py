"""A table of what Lightning logs, which goes on when the run does.  python train.py logger=csv"""

import csv
import io
from pathlib import Path

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from typing_extensions import override

from normlab.callbacks.loggers.going_on import GoesOn
from normlab.folder.writing import write_text


class Table(ExperimentWriter):
    """Lightning's writer, which keeps the file that an earlier start has left."""

    @override
    def _check_log_dir_exists(self) -> None:
        file = Path(self.metrics_file_path)
        if file.is_file():
            with file.open(newline="") as lines:
                self.metrics_keys = next(csv.reader(lines), [])


class Csv(GoesOn, CSVLogger):
    """Lightning's CSVLogger, which would begin another file at each start."""

    @property
    @override
    @rank_zero_experiment
    def experiment(self) -> Table:  # pyright: ignore
        if self._experiment is None:
            self._experiment = Table(self.log_dir)
        return self._experiment  # pyright: ignore[reportReturnType]

    @override
    def go_on(self, step: int) -> None:
        """Cuts the table, and the line that a kill may have left unfinished."""
        table = self.experiment
        file = Path(table.metrics_file_path)
        if not file.is_file():
            return
        lines = file.read_text().splitlines(keepends=True)
        rows = csv.DictReader(line for line in lines if line.endswith("\n"))
        kept = [row for row in rows if None not in row.values() and int(row["step"]) < step]
        self.logged = {
            name: int(row["step"]) for row in kept for name, value in row.items() if value and name != "step"
        }
        text = io.StringIO()
        writer = csv.DictWriter(text, table.metrics_keys, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
        write_text(file, text.getvalue())
