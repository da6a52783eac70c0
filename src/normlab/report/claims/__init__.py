"""The report of a laboratory's sweep: what the textbook claims, and what came out when it was put to the test.

It is written where a sweep's folder holds claims.json beside its fair.json, into the same files as any report.
"""

from pathlib import Path


def write(folder: Path, out: Path) -> str:
    """Writes report.html, summary.csv and summary.md about the sweep in `folder`. Returns the answer in a few lines.

    Raises ConfigError where claims.json or fair.json is damaged, and OSError.
    """
    from normlab.folder import writing  # here, as other reports ask this room only whether a sweep has claims
    from normlab.report.claims import page, tables, words
    from normlab.report.claims.about import about
    from normlab.report.claims.findings import read_laboratory

    lab = read_laboratory(folder)
    known = about(lab)
    html = page.page(lab, known, out)
    out.mkdir(parents=True, exist_ok=True)
    rows = tables.figures(lab).to_csv(index=False, float_format="%.6g", lineterminator="\n")
    writing.write_text(out / "summary.csv", rows)
    writing.write_text(out / "summary.md", tables.markdown(lab, known))
    writing.write_text(out / "report.html", html)
    return words.terminal(lab)
