"""Figures that stand in texts: how they are read there, and how far a measurement may lie from them.

The texts hold the only copy of each number. Nothing here takes time, so that tests can import it.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

SCORE_ROW = re.compile(
    r"\| `python train\.py(?P<command>[^`]*)`[^|]*\| (?P<metric>accuracy|R²) (?P<mean>-?\d+\.\d+) ± (?P<sd>\d+\.\d+) "
    r"\| (?P<low>\d+)(?:–(?P<high>\d+))? s \|"
)
SEEDS = re.compile(r"`([\w.]+)=(\d+)…(\d+)` for digits and over `([\w.]+)=(\d+)…(\d+)`\s+for the tables")
WORDS = {"a quarter of a second": 0.25, "half a second": 0.5, "five": 5.0, "eight": 8.0}
RATIO = re.compile(
    r"×|efficiency| / |of torchvision's|of by hand|processor time, DDP|^\("
)  # what its columns are called
RATIO_NOISE, MACHINE_NOISE = 1.25, 2.0  # the factor by which two measurements of one thing may part
SAME_ROUNDING = 0.0005  # a score in a text has three digits


@dataclass(frozen=True)
class Finding:
    """One figure: where it stands, what it is about, what the text says, what was measured, and whether they agree."""

    where: str
    about: str
    said: str
    measured: str
    verdict: str  # as said, DIFFERS, or why it is not judged


@dataclass(frozen=True)
class ScoreRow:
    """A row of the README's first table: what stands behind `python train.py`, its score and its seconds."""

    line: int
    overrides: tuple[str, ...]
    metric: str
    mean: float
    sd: float
    seconds: tuple[float, float]
    varied: str
    values: tuple[int, ...]

    @property
    def command(self) -> str:
        return " ".join(("train.py", *self.overrides))


@dataclass(frozen=True)
class Table:
    """A table in Markdown; `rows` gives for a row's first cell the line where it stands and its other cells.

    The second of two rows that begin alike is called by its first two cells.
    """

    header: tuple[str, ...]
    rows: dict[str, tuple[int, tuple[str, ...]]]


def score_rows(text: str) -> list[ScoreRow]:
    """The first table of the README. Raises ValueError where the table, or what it was taken over, cannot be read."""
    over = SEEDS.search(text)
    if not over:
        raise ValueError("README.md does not say over which seeds and splits the scores of its first table are taken")
    of_digits, of_tables = ((over[i], tuple(range(int(over[i + 1]), int(over[i + 2]) + 1))) for i in (1, 4))
    rows = []
    for place, line in enumerate(text.splitlines(), 1):
        if found := SCORE_ROW.fullmatch(line):
            overrides = tuple(found["command"].split())
            varied, values = of_tables if any(one.startswith("data=") for one in overrides) else of_digits
            seconds = float(found["low"]), float(found["high"] or found["low"])
            score = float(found["mean"]), float(found["sd"])
            rows.append(ScoreRow(place, overrides, found["metric"], *score, seconds, varied, values))
        elif line.startswith("| `python train.py"):
            raise ValueError(f"README.md:{place}: the form is | `python train.py …` | metric mean ± sd | n s |")
    if not rows:
        raise ValueError("README.md has no table of scores")
    return rows


def score_noise(sd: float, runs: int, of: int, differences: Sequence[float]) -> float:
    """How far the mean of `runs` scores may lie from a text's mean of `of` of them, the same seeds among them.

    The text's standard deviation is `sd`. Where seeds are left out, the mean moves by that of a sample without
    replacement; three times its standard error is allowed. The rest is rounding, which another kind of processor does
    otherwise: `differences` are those between the scores of single and double precision of the same seeds. At least a
    fifth of `sd` is allowed for it, since no difference in a few runs does not say that there never is one.
    """
    sampling = 3 * sd * math.sqrt(1 / runs - 1 / of)
    rounding = 3 * math.sqrt(sum(d * d for d in differences)) / len(differences) if differences else 0.0
    return sampling + max(rounding, sd / 5) + SAME_ROUNDING


def tables(text: str) -> list[Table]:
    """All tables of a text, those of one row among them."""
    found: list[Table] = []
    text = text.replace("\N{NO-BREAK SPACE}", " ")
    before: tuple[str, ...] | None = None
    inside = False
    for place, line in enumerate(text.splitlines(), 1):
        cells = tuple(cell.strip() for cell in line.strip().strip("|").split("|")) if line.startswith("|") else None
        if cells is not None and before is not None and set("".join(cells)) == {"-"}:
            found.append(Table(before, {}))
            inside = True
        elif cells is not None and inside:
            name = f"{cells[0]}, {cells[1]}" if cells[0] in found[-1].rows else cells[0]
            found[-1].rows[name] = place, cells[1:]
        else:
            inside = False
        before = cells
    return found


def number(cell: str) -> float | None:
    """The first number of a cell such as `5,746` or `0.964 ± 0.003`, or one in words; None of a cell without."""
    if cell in WORDS:
        return WORDS[cell]
    found = re.match(r"-?[\d,]*\.?\d+", cell)
    return float(found[0].replace(",", "")) if found else None


def compare_tables(file: str, said: Sequence[Table], measured: Sequence[Table]) -> list[Finding]:
    """The figures of each measured table against the text's table of the same header.

    Ratios may part by RATIO_NOISE, times and sizes of the machine by MACHINE_NOISE; scores are judged elsewhere. What
    the text does not have is not judged.
    """
    findings = []
    for table in measured:
        texts = [one for one in said if one.header == table.header and one.rows.keys() & table.rows.keys()]
        for name, (_, now) in table.rows.items():
            if not texts or name not in texts[0].rows:
                findings.append(Finding(file, name, "no such row", ", ".join(now), "not judged"))
                continue
            line, before = texts[0].rows[name]
            for column, old, new in zip(table.header[1:], before, now, strict=True):
                if "accuracy" not in column and number(old) is not None:
                    ratio = RATIO.search(column) and not name.endswith(", ms")
                    verdict = agree(old, new, RATIO_NOISE if ratio else MACHINE_NOISE)
                    findings.append(Finding(f"{file}:{line}", f"{name}, {column}", old, new, verdict))
    return findings


def agree(said: str, measured: str, factor: float) -> str:
    """Whether two positive figures in words differ by at most a factor."""
    before, now = number(said), number(measured)
    if before is None or now is None:
        return "DIFFERS"
    return "as said" if before / factor <= now <= before * factor else "DIFFERS"
