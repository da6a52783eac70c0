"""A page as one HTML file that a browser shows without a network."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader

from normlab.report.charts import Spec


class Page:
    """A page in the making. It has the charts that were placed on it, which its template puts where they belong."""

    def __init__(self) -> None:
        self.charts: list[Spec] = []

    def place(self, chart: Spec | None) -> int | None:
        """Puts a chart on the page, and returns its number there."""
        if chart is None:
            return None
        self.charts.append(chart)
        return len(self.charts) - 1

    def html(self, template: str, title: str, **values: Any) -> str:
        """The whole page. template: a file beside this one, which is given the values; they are escaped."""
        here = Path(__file__).parent
        environment = Environment(loader=FileSystemLoader(here), autoescape=True, trim_blocks=True, lstrip_blocks=True)
        return environment.get_template(template).render(
            title=title,
            style=(here / "page.css").read_text(),
            library=library() if self.charts else "",
            charts=json.dumps(self.charts, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c"),
            **values,
        )


@cache
def library() -> str:
    """Vega, Vega-Lite and Vega-Embed as JavaScript."""
    return vl_convert.javascript_bundle()  # pyright: ignore[reportCallIssue]  # its stub asks for more than it does
