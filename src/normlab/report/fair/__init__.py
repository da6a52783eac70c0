"""The report of a fair sweep: each arm at its own best setting, compared by fresh runs on the test part alone.

It is written where a sweep's folder holds fair.json, into the same files as any report.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from normlab.report.comparison import Comparison


def write(folder: Path, out: Path) -> "tuple[str, list[Comparison]]":
    """Writes report.html, summary.csv and summary.md about the sweep in `folder`.

    Returns the answer in a few lines, and the comparisons by test scores, one for each data set. Raises ConfigError
    where fair.json is damaged, and OSError.
    """
    from normlab.folder import writing  # here, as other reports ask this room only whether a sweep is fair
    from normlab.report.fair import page, tables, words
    from normlab.report.fair.about import about
    from normlab.report.fair.standing import contests
    from normlab.report.fair.sweep import read_sweep

    sweep = read_sweep(folder)
    found = contests(sweep)
    known = about(sweep, found)
    html = page.page(sweep, found, known, out)
    out.mkdir(parents=True, exist_ok=True)
    rows = tables.table(found).to_csv(index=False, float_format="%.6g", lineterminator="\n")
    writing.write_text(out / "summary.csv", rows)
    writing.write_text(out / "summary.md", tables.markdown(sweep, found, known))
    writing.write_text(out / "report.html", html)
    return words.terminal(sweep, found), [contest.comparison for contest in found]
