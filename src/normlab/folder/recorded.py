"""norms.csv, which `callbacks=recorder` writes: a row for each norm layer and recorded step. No torch in it."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from normlab.folder.files import damaged
from normlab.folder.writing import append_line, write_text

FILE = "norms.csv"
KEYS = ("step", "epoch", "layer")
# What `normlab.norms.common.watched` and the recorder measure of a layer; docs/statistics.md says what each one means.
MEASURES = (
    *("drift", "drift_max", "variance_ratio", "variance_ratio_min", "variance_ratio_max"),
    *("gamma", "gamma_min", "gamma_max", "beta", "beta_min", "beta_max"),
    *("channels", "dead", "saturated", "spread", "gradient", "effective_rate"),
)
COLUMNS = (*KEYS, *MEASURES)
FAINT = 0.01  # a channel with a smaller |γ|, or smaller values behind the activation, carries almost nothing


def read_recorded(file: Path) -> list[dict[str, str]]:
    """The rows up to the first that is damaged or out of turn; none where there is no file, or an empty one.

    Raises DamagedError where the table of another program stands there.
    """
    try:
        lines = file.read_bytes().split(b"\n")[:-1]  # a last line that was not finished may have lost digits
    except FileNotFoundError:
        return []
    except OSError as error:
        raise damaged(file) from error
    texts = [line.decode("utf-8", "replace") for line in lines]
    if texts and texts[0] != ",".join(COLUMNS):
        raise damaged(file)
    rows: list[dict[str, str]] = []
    for cells in csv.reader(texts[1:]):
        row = dict(zip(COLUMNS, cells, strict=False))
        if len(cells) != len(COLUMNS) or not _is_whole(row) or (rows and int(row["step"]) < int(rows[-1]["step"])):
            break
        rows.append(row)
    return rows


def cut_recorded(file: Path, step: int) -> None:
    """Keeps the rows of the steps before `step`, where training goes on; makes the file where there is none."""
    rows = [row for row in read_recorded(file) if int(row["step"]) < step]
    write_text(file, _lines([COLUMNS, *(tuple(row.values()) for row in rows)]))


def append_recorded(file: Path, rows: Iterable[Mapping[str, float | int | str]]) -> None:
    """Adds the rows of a step; a measure that a row lacks is an empty cell. Nothing is synced. Raises WriteError."""
    append_line(file, _lines([[_cell(row.get(name, "")) for name in COLUMNS] for row in rows]), sync=False)


def _lines(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _cell(value: float | str) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _is_whole(row: Mapping[str, str]) -> bool:
    try:
        [float(row[name] or 0) for name in MEASURES]
    except ValueError:
        return False
    return row["step"].isdecimal() and row["epoch"].isdecimal()
