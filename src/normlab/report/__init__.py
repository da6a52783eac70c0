"""The report of a sweep, or of any runs: which configuration won, by how much, and how sure that is. No torch in it.

python -m normlab.report <folder>… [--out FOLDER]; the folder of one run gets a page of its own, see single/.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from normlab.report.comparison import Comparison

__all__ = ["Report", "write_report"]


@dataclass(frozen=True)
class Report:
    """What was written: the folder of report.html, summary.csv and summary.md; the comparisons, and their answer."""

    folder: Path
    comparisons: "list[Comparison]"
    answer: str

    def __str__(self) -> str:
        """The essence, for a terminal."""
        from normlab.folder.place import shown

        return f"{self.answer}\n{shown(self.folder.absolute() / 'report.html')}, summary.md, summary.csv"


def write_report(folders: Sequence[str | Path], out: str | Path | None = None) -> Report:
    """Writes report.html, summary.csv and summary.md about all runs in some folders and below them.

    A folder with fair.json is compared by its fresh runs, and so it is reported alone; one with claims.json besides
    puts these to the test.

    out: where to; None takes the folder, of several the one that holds them all. Raises ConfigError where a folder is
    not there or holds no run, for runs of a newer version, and for runs whose scores cannot be compared.
    """
    from normlab.report.claims.record import has_claims
    from normlab.report.fair.sweep import is_fair
    from normlab.report.runs import find_runs

    assert folders, "no folder to report on"
    paths = [Path(path) for path in folders]
    place = Path(os.path.commonpath([path.absolute() for path in paths])) if out is None else Path(out)
    if has_claims(paths[0]) and len(paths) == 1:
        from normlab.report import claims

        return Report(place, [], claims.write(paths[0], place))
    if is_fair(paths):
        from normlab.report import fair

        answer, comparisons = fair.write(paths[0], place)
        return Report(place, comparisons, answer)
    runs = find_runs(paths)  # before what takes a second to import: it may refuse

    import pandas as pd

    from normlab.folder import writing
    from normlab.report import facts, tables
    from normlab.report.answer import terminal
    from normlab.report.compare import compare
    from normlab.report.page import page

    comparisons = compare(runs)
    known = facts.facts(paths, comparisons)
    _, html = page(comparisons, known, paths, place)
    place.mkdir(parents=True, exist_ok=True)
    rows = pd.concat([tables.table(comparison) for comparison in comparisons])
    writing.write_text(place / "summary.csv", rows.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    writing.write_text(place / "summary.md", tables.markdown(comparisons, known))
    writing.write_text(place / "report.html", html)
    return Report(place, comparisons, terminal(comparisons))
