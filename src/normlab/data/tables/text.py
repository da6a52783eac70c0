"""Tables in text files, looked at before pandas reads them: messages can then name the line. Imports no pandas."""

import csv
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from normlab.errors import ConfigError, Problems

DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
LONGEST_LINE = 2**24  # characters; more in one line is no table, and is not read to its end
SAMPLE = 100  # the delimiter is found by so many rows
LINES = 5  # how many further lines of a mistake are named

MAGIC = b"PAR1"  # how a parquet file begins

# How files begin that people often take for text.
OTHERS = {
    b"PK\x03\x04": "a zip archive or an Excel file",
    b"\xd0\xcf\x11\xe0": "an old Excel file",
    b"\x1f\x8b": "compressed",
    MAGIC: "a parquet file: choose data=parquet",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}


@dataclass(frozen=True)
class Layout:
    """How a text file is to be read. Names of columns may be empty, and are unique otherwise."""

    delimiter: str
    names: list[str]


def check_file(path: Path, where: str) -> None:
    """Raises ConfigError, which begins with `where`, unless `path` is a file that can be read and is not empty."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ConfigError(f"{where}: this is a folder, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{where}: this is no regular file")
        path.open("rb").close()
    except OSError as error:  # not there, no permission, links in a circle, …
        raise ConfigError(f"{where}: {error.strerror or error}") from error
    if status.st_size == 0:
        raise ConfigError(f"{where}: the file is empty")


def is_parquet(path: Path) -> bool:
    """Whether a file begins as parquet files do; False where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def find_layout(path: Path, where: str, delimiter: str | None, header: bool) -> Layout:
    """Delimiter and columns of a text file; without a `header` they are called c0, c1, ….

    delimiter: None for the one of `DELIMITERS` by which most of the first rows have as many columns as the first row,
    and more than one. Raises ConfigError for a file that is no table.
    """
    check_file(path, where)
    with path.open("rb") as file:
        start = file.read(8)
    for magic, kind in OTHERS.items():
        if start.startswith(magic):
            raise ConfigError(f"{where}: this is {kind}; expected a text file in UTF-8")
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '\r\n"'):
        raise ConfigError(f"data.delimiter={delimiter!r}: expected a single character, or null")
    likely = _likely_delimiter(path, where)
    chosen = delimiter or likely or ","
    rows = [row for _, row in islice(read_rows(path, where, chosen), 2)]
    if not rows:
        raise ConfigError(f"{where}: the file has blank lines only")
    if len(rows[0]) < 2:
        remedy = f"{likely!r} gives more" if likely else f"it has none of {', '.join(DELIMITERS.values())}"
        raise ConfigError(f"{where}: with data.delimiter={chosen!r} the first line is a single column; {remedy}")
    if not header:
        return Layout(chosen, [f"c{number}" for number in range(len(rows[0]))])
    names = [name.strip() for name in rows[0]]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"{where}: columns with the same name: {', '.join(map(repr, twice[:5]))}; if the first line is data, set "
            "data.header=false"
        )
    if len(rows) < 2:
        raise ConfigError(f"{where}: there is a header and no row below it")
    return Layout(chosen, names)


def count_rows(path: Path, where: str, layout: Layout, problems: Problems) -> int:
    """How many rows the file has; gathers a refusal of those with more or fewer columns than the first.

    Raises ConfigError for a line that cannot be read.
    """
    rows, width = 0, len(layout.names)
    uneven: list[tuple[int, int]] = []  # the lines of such rows, and how many columns each has
    for line, row in read_rows(path, where, layout.delimiter):
        rows += 1
        if len(row) != width:
            uneven.append((line, len(row)))
    with problems.gather():
        if uneven:
            raise ConfigError(
                f"{where}: {_uneven(uneven, width)}; texts that contain the delimiter "
                f"{layout.delimiter!r} must be quoted"
            )
    return rows


def _uneven(lines: Sequence[tuple[int, int]], width: int) -> str:
    (line, columns), *others = lines
    numbers = ", ".join(str(number) for number, _ in others[:LINES]) + (", …" if len(others) > LINES else "")
    more = f", likewise {len(others):,} more ({numbers})" if others else ""
    return f"line {line} has another number of columns ({columns}) than the first ({width}){more}"


def even_rows(path: Path, where: str, layout: Layout) -> dict[int, list[str]]:
    """The rows with as many columns as the first, by their places in the file, counted from 0."""
    rows = enumerate(row for _, row in read_rows(path, where, layout.delimiter))
    return {place: row for place, row in rows if len(row) == len(layout.names)}


def read_rows(path: Path, where: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a text file with the number of the line that each ends in; blank lines are left out."""
    reader = csv.reader(_lines(path, where), delimiter=delimiter, skipinitialspace=True)
    try:
        for row in reader:
            if row and row != [""]:
                yield reader.line_num, row
    except csv.Error as error:
        raise ConfigError(f"{where}: line {reader.line_num}: {error}; is a quote left open?") from error


def _lines(path: Path, where: str) -> Iterator[str]:
    # bytes that are not UTF-8 come as surrogates, so that their line is known
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise ConfigError(f"{where}: line {number} has more than {LONGEST_LINE:,} characters; this is no table")
            if "\0" in line:
                raise ConfigError(f"{where}: line {number} has a zero byte: this is a binary file, or text in UTF-16")
            if not line.isascii() and (wrong := next((c for c in line if "\ud800" <= c <= "\udfff"), None)):
                raise ConfigError(
                    f"{where}: line {number} is not in UTF-8 (byte 0x{ord(wrong) & 0xFF:02x}): save the file as UTF-8, "
                    "as `iconv -f latin1 -t utf-8` does"
                )
            yield line


def _likely_delimiter(path: Path, where: str) -> str | None:
    """The delimiter by which most of the first rows have as many columns as the first; None where all give one."""
    scores: dict[str, tuple[int, int]] = {}
    for delimiter in DELIMITERS:
        widths = []
        reader = csv.reader(_lines(path, where), delimiter=delimiter, skipinitialspace=True)
        with suppress(csv.Error):  # reading the file refuses it
            widths.extend(len(row) for row in islice(reader, SAMPLE) if row)
        if widths and widths[0] > 1:
            scores[delimiter] = widths.count(widths[0]), widths[0]
    return max(scores, key=lambda delimiter: scores[delimiter]) if scores else None
