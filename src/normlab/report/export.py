"""Saves the charts of a page as SVG, PNG or PDF, and its tables as LaTeX or Markdown."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from normlab.errors import ConfigError

FORMATS = ("svg", "png", "pdf", "latex", "markdown")
WIDTH = 700  # of a chart, in pixels
SCALE = 3  # of a PNG
TEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$",
    "–": "--", "★": r"$\star$", "≈": r"$\approx$", "†": r"$\dagger$", "\N{NO-BREAK SPACE}": "~",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}  # fmt: skip


def check_formats(text: str) -> list[str]:
    """The formats in `svg,png`. Raises ConfigError."""
    formats = [word.strip() for word in text.split(",")]
    if unknown := [word for word in formats if word not in FORMATS]:
        raise ConfigError(f"--export {text}: {unknown[0]!r} is none of {', '.join(FORMATS)}")
    return formats


def export(page: Path, formats: Sequence[str], folder: Path) -> list[Path]:
    """Writes the charts and tables of a page into a folder, a file each, and returns the files."""
    from normlab.folder import writing

    found = re.findall(r'<script type="application/json"( id="charts")?>(.*?)</script>', page.read_text(), re.DOTALL)
    charts = next(json.loads(text) for mark, text in found if mark)
    grids = [json.loads(text) for mark, text in found if not mark]
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, data in [*_charts(charts, formats), *_tables(grids, formats)]:
        writing.write_with(folder / name, lambda file, data=data: file.write(data), sync=False)
        written.append(folder / name)
    return written


def _charts(charts: Sequence[dict[str, Any]], formats: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    import vl_convert

    colours = _light()
    for chart in charts if {"svg", "png", "pdf"} & {*formats} else []:
        drawing = chart["drawing"] | {"width": WIDTH, "background": "#ffffff"}
        plain = re.sub(r"var\((--\w+)\)", lambda name: colours[name[1]], json.dumps(drawing))
        svg = vl_convert.vegalite_to_svg(plain)
        if "svg" in formats:
            yield f"{chart['name']}.svg", svg.encode()
        if "png" in formats:
            yield f"{chart['name']}.png", vl_convert.svg_to_png(svg, scale=SCALE)
        if "pdf" in formats:
            yield f"{chart['name']}.pdf", vl_convert.svg_to_pdf(svg)


def _light() -> dict[str, str]:
    """The colours of the light page."""
    style = (Path(__file__).parent / "page.css").read_text()
    return dict(re.findall(r"(--\w+): (#\w+)", style.split("}")[0]))


def _tables(grids: Sequence[dict[str, Any]], formats: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for grid in grids:
        heads = ["" if kind == "mark" else name for name, kind in grid["heads"]]
        rows = [[_text(content) for content in row] for row in grid["rows"]]
        if "markdown" in formats:
            yield f"{grid['name']}.md", _markdown(heads, rows).encode()
        if "latex" in formats:
            sides = "".join("l" if kind in ("key", "mark") else "r" for _, kind in grid["heads"])
            yield f"{grid['name']}.tex", _latex(heads, rows, sides).encode()


def _text(content: Any) -> str:
    return content if isinstance(content, str) else " ".join(name for name, _ in content)


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    from normlab.report.tables import cell  # with pandas, which a refused command does not need

    lines = [[*map(cell, heads)], ["---"] * len(heads), *([*map(cell, row)] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _latex(heads: Sequence[str], rows: Sequence[Sequence[str]], sides: str) -> str:
    """A tabular in the style of booktabs. sides: of its columns, such as `lrr`."""
    first, *others = [" & ".join(map(_tex, row)) + " \\\\" for row in [heads, *rows]]
    lines = [
        f"\\begin{{tabular}}{{{sides}}}",
        "\\toprule",
        first,
        "\\midrule",
        *others,
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _tex(text: str) -> str:
    return "".join(TEX.get(sign, sign) for sign in text)
