"""A report that would come out as it lies there already is not made again.

What a report rests on is a hash at the end of its page, with the answer for a terminal.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from normlab.report.runs import run_folders

OF_A_SWEEP = ("multirun.yaml", "fair.json", "claims.json", "study.db")
OF_A_RUN = ("result.json", "config.yaml", "metrics.csv", "environment.json", "measured.json")
FILES = ("report.html", "summary.md", "summary.csv")
NOTE = "\n<!-- rests on {grounds} {answer} -->\n"
END = 100_000  # bytes at the end of a page that hold the note


def grounds(folder: Path) -> str:
    """A hash of all that the report of a sweep is made of: its runs, its study, and the report's own code."""
    made = hashlib.sha256()
    for name, content in _parts(folder):
        made.update(f"{name} {len(content)} ".encode() + content)
    return made.hexdigest()


def _parts(folder: Path) -> Iterator[tuple[str, bytes]]:
    here = Path(__file__).parent
    for file in sorted(file for file in here.rglob("*") if file.suffix in (".py", ".html", ".css", ".js")):
        yield str(file.relative_to(here)), file.read_bytes()
    yield from ((name, _content(folder / name)) for name in OF_A_SWEEP)
    for run in sorted(run_folders(folder)):
        yield str(run), str((run / "report.html").is_file()).encode()  # the page links to it
        yield from ((name, _content(run / name)) for name in OF_A_RUN)


def _content(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""


def note(folder: Path, grounds: str, answer: str) -> None:
    """Writes into a page what it rests on, and what it answers."""
    text = json.dumps(answer).replace("-", "\\u002d").replace(">", "\\u003e")  # nothing in it ends the comment
    with (folder / "report.html").open("a") as page:
        page.write(NOTE.format(grounds=grounds, answer=text))


def answer(folder: Path, grounds: str) -> str | None:
    """The answer of a report that is there and rests on the same; None where it has to be made."""
    if not all((folder / name).is_file() for name in FILES):
        return None
    with (folder / "report.html").open("rb") as page:
        page.seek(max(0, page.seek(0, 2) - END))
        end = page.read().decode(errors="replace")
    noted = re.search(NOTE.format(grounds=grounds, answer=r'(".*")') + r"\Z", end)
    return None if noted is None else json.loads(noted[1])
