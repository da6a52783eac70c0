"""A page as one HTML file that a browser shows without a network."""

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import vl_convert
from jinja2 import Environment, FileSystemLoader

from normlab.report.chart import Chart
from normlab.report.grid import Grid

HERE = Path(__file__).parent
SCRIPTS = ("common.js", "charts.js", "fold.js", "grid.js", "around.js")


class Placed(NamedTuple):
    """A chart on a page; `chart` of chart.html puts it where a template wants it."""

    number: int
    chart: Chart


class Page:
    """A page in the making: its template puts the charts and tables that were placed on it where they belong."""

    def __init__(self) -> None:
        self.charts: list[Chart] = []
        self.grids: list[Grid] = []

    def place(self, chart: Chart | None) -> Placed | None:
        """Puts a chart on the page, under a name for files that no other chart on it has."""
        if chart is None:
            return None
        name = re.sub(r"\W+", "-", chart.name).strip("-")
        others = sum(re.fullmatch(rf"{re.escape(name)}(-\d+)?", other.name) is not None for other in self.charts)
        self.charts.append(replace(chart, name=f"{name}-{others + 1}" if others else name))
        return Placed(len(self.charts) - 1, chart)

    def grid(self, grid: Grid) -> Grid:
        """Puts a table on the page."""
        self.grids.append(grid)
        return grid

    def html(self, template: str, title: str, **values: Any) -> str:
        """The whole page. template: a file beside this one, which is given the values; they are escaped."""
        environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
        environment.filters["script"] = as_script
        return environment.get_template(template).render(
            title=title,
            style=(HERE / "page.css").read_text(),
            library=library() if self.charts else "",
            charts=as_script([{"name": chart.name, "drawing": chart.drawing} for chart in self.charts]),
            scripts=[(HERE / name).read_text() for name in SCRIPTS],
            **values,
        )


def as_script(content: Any) -> str:
    """JSON that may stand in a script: nothing in it ends the script."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


@cache
def library() -> str:
    """Vega, Vega-Lite and Vega-Embed as JavaScript."""
    return vl_convert.javascript_bundle()  # pyright: ignore[reportCallIssue]  # its stub asks for more than it does
