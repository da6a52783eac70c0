"""Who cannot see a chart reads its sentence and its numbers."""

import re
from html import unescape

import pytest
from helpers.reports import make_run, make_sweep
from PIL import Image

from normlab.errors import ConfigError
from normlab.report import write_report
from normlab.report.chart import Chart
from normlab.report.charts import WRAP, wrapped
from normlab.report.export import check_formats, export


def alternatives(folder):
    """(what a screen reader says, the table that follows as rows of cells) of each chart of a page."""
    html = (folder / "report.html").read_text()
    for match in re.finditer(r'<div class="chart" role="img" aria-label="([^"]*)">', html):
        after = html[match.end() :].split('<div class="chart"')[0].split("</section>")[0]
        lines = re.findall(r"<tr.*?</tr>", after, flags=re.S)
        yield (
            unescape(match[1]),
            [[unescape(cell) for cell in re.findall(r"<t[dh].*?>(.*?)</t", line)] for line in lines],
        )


def test_every_chart_has_a_sentence_and_its_numbers(tmp_path):
    scores = {"batch": [0.90, 0.80, 0.85], "group": [0.70, 0.61, 0.66], "none": [0.92, 0.70, 0.88]}
    sweep = make_sweep(tmp_path / "s", scores)
    write_report([sweep])
    told = list(alternatives(sweep))
    html = (sweep / "report.html").read_text()
    assert len(told) == html.count('"drawing":') == 5
    (first, table), *panels, (last, effect) = told
    assert (
        first
        == "val/acc of 3 configurations, from 0.850 for batch to 0.657 for group. The numbers are in the table below."
    )
    assert [row[0] for row in table] == ["configuration", "batch", "none", "group"]
    assert table[2][3] == "0.920, 0.700, 0.880"
    curves = panels[-1][1]  # one table for all panels
    assert [row[0] for row in curves] == ["configuration", "batch", "none", "group"]
    assert curves[1][1:] == ["0.425 (0.400 to 0.450)", "0.850 (0.800 to 0.900)"]
    assert last.startswith("val/acc by norm: batch 0.850, none 0.833, group 0.657.")
    assert [row[:2] for row in effect] == [
        ["norm", "val/acc"],
        ["batch", "0.850"],
        ["none", "0.833"],
        ["group", "0.657"],
    ]


def test_a_chart_without_its_numbers_cannot_be_made():
    with pytest.raises(AssertionError, match="where are its numbers"):
        Chart("bare", {}, "It shows something.")
    with pytest.raises(AssertionError, match="says nothing"):
        Chart("mute", {}, "", ["a"], [["1"]])


def test_no_two_configurations_are_shown_alike(tmp_path):
    """Drawn numbers are shown to five digits, and to more where these would be the same."""
    for number, rate in enumerate(("0.0123456781", "0.0123456789", "0.5")):
        make_run(tmp_path / str(number), "model=net", "data=wine", f"optimizer.lr={rate}", score=0.5 + number / 10)
    (comparison,) = write_report([tmp_path]).comparisons
    assert len({configuration.label for configuration in comparison.configurations}) == 3
    names = [row[0] for row in next(alternatives(tmp_path))[1][1:]]
    assert names == ["lr=0.5", "lr=0.012345679", "lr=0.012345678"]


def test_a_long_name_takes_lines_and_loses_nothing():
    name = " · ".join(["resnet", "averylongnameofacallbackthatnobodywouldtype", "batch_size=32", "lr=0.1"])
    lines = wrapped(name).split("\n")
    assert max(map(len, lines)) <= WRAP
    assert "".join(lines).replace(" · ", "") == name.replace(" · ", "")
    assert wrapped("group · mynet") == "group · mynet"


def test_charts_and_tables_are_saved_as_files(tmp_path):
    scores = {"batch": [0.90, 0.80], "group": [0.70, 0.61]}
    sweep = make_sweep(tmp_path / "s", scores)
    write_report([sweep])
    written = export(sweep / "report.html", ["svg", "png", "latex", "markdown"], tmp_path / "files")
    names = {"scores", "curves-batch", "curves-group", "effect-norm"}
    assert {file.name for file in written} == {f"{name}.{end}" for name in names for end in ("svg", "png")} | {
        f"{name}.{end}" for name in ("configurations", "runs") for end in ("tex", "md")
    }
    svg = (tmp_path / "files" / "scores.svg").read_text()
    assert "var(" not in svg
    assert {"batch", "group"} <= set(re.findall(r"<text[^>]*>([^<]*)</text>", svg))
    with Image.open(tmp_path / "files" / "scores.png") as picture:
        assert picture.size[0] == 3 * 700
        assert picture.getpixel((0, 0))[:3] == (255, 255, 255)  # on paper, not on nothing
    (heads, first, _) = (tmp_path / "files" / "configurations.tex").read_text().split("rule\n")[1:]
    assert heads.startswith(r" & norm & val/acc & 95 \% interval & ")
    assert first.startswith(r"$\star$ & batch & 0.850~$\pm$~0.071 & ")
    assert (tmp_path / "files" / "runs.md").read_text().count("\n| ") == 5


def test_formats_that_are_unknown_are_refused():
    assert check_formats("svg, latex") == ["svg", "latex"]
    with pytest.raises(ConfigError, match="--export svg,jpg: 'jpg' is none of svg, png, pdf, latex, markdown"):
        check_formats("svg,jpg")
