"""The report's page in a real browser: drawn in its colours, used by keys, on a phone, and as axe sees it."""

import importlib.util
from pathlib import Path

import pytest
from helpers.browser import look, needs_browser
from helpers.reports import make_run, make_sweep

from normlab.report import write_report

pytestmark = [pytest.mark.slow, needs_browser]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Three norms with three seeds, two rates of each, and a run that failed."""
    folder = tmp_path_factory.mktemp("report") / "s"
    scores = {"batch": [0.90, 0.80, 0.85], "group": [0.70, 0.61, 0.66], "none": [0.92, 0.70, 0.88]}
    make_sweep(folder, scores, "optimizer.lr=0.1")
    make_sweep(folder, {norm: [score / 2 for score in each] for norm, each in scores.items()}, "optimizer.lr=0.5")
    make_run(folder / "18", "model=net", "data=wine", "norm=batch", "seed=9", score=None, status="failed", error="NaN")
    write_report([folder])
    return folder


@pytest.mark.parametrize("dark", [False, True])
def test_every_chart_is_drawn_in_the_colours_of_the_page(dark, tmp_path):
    write_report([make_sweep(tmp_path / "s")])
    script = """
      const label = document.querySelector(".chart svg text");
      const told = [document.querySelectorAll(".chart").length, document.querySelectorAll(".chart svg").length,
        getComputedStyle(label).fill, getComputedStyle(document.body).backgroundColor,
        document.documentElement.scrollWidth <= innerWidth];
      const curves = document.querySelectorAll(".chart svg")[2];
      curves.scrollIntoView();
      const {left, top, width, height} = curves.getBoundingClientRect();
      const at = {clientX: left + 0.95 * width, clientY: top + 0.06 * height, bubbles: true, view: window};
      for (const name of ["pointerover", "pointermove"])
        document.elementFromPoint(at.clientX, at.clientY).dispatchEvent(new PointerEvent(name, at));
      return [...told, document.getElementById("vg-tooltip-element").innerText.replace(/\\s+/g, " ")];"""
    told = look(tmp_path / "s" / "report.html", script, tmp_path, width=500, dark=dark)
    ink, paper = ("rgb(160, 168, 178)", "rgb(20, 23, 27)") if dark else ("rgb(92, 101, 112)", "rgb(255, 255, 255)")
    assert told[:-1] == [5, 5, ink, paper, True]
    run = tmp_path / "s" / "6"  # the highest point, at the end
    assert told[-1] == f"run {run} (finished) seed 1 epoch 1 val/acc 0.92"


def test_a_table_is_sorted_and_filtered_and_two_runs_are_compared(sweep, tmp_path):
    script = """
      const table = document.querySelector("#configurations table");
      const head = [...table.tHead.rows[0].cells].find((cell) => cell.textContent === "val/acc");
      const column = () => [...table.tBodies[0].rows].map((row) => parseFloat(row.cells[head.cellIndex].textContent));
      const told = {page: column()};
      for (const order of ["up", "down", "again"]) {
        head.querySelector("button").click();
        told[order] = [head.getAttribute("aria-sort"), column()];
      }
      const filter = document.querySelector("#configurations input");
      filter.value = "norm=none val/acc<0.6";
      filter.dispatchEvent(new Event("input"));
      told.filtered = [column(), document.querySelector("#configurations [role=status]").textContent];
      document.querySelectorAll("details").forEach((each) => (each.open = true));
      const box = (run) => document.querySelector(`[aria-label="Compare run ${run}"]`);
      for (const run of [17, 0, 3]) box(run).click();
      told.chosen = [17, 0, 3].map((run) => box(run).checked);
      told.focus = document.activeElement.getAttribute("aria-label");
      const cells = (row) => [...row.cells].map((cell) => cell.textContent);
      told.differ = [...document.querySelectorAll("#runs .told tr")].map(cells);
      let saved = "";
      HTMLAnchorElement.prototype.click = function () { saved = [this.download, decodeURIComponent(this.href)]; };
      document.querySelector('#configurations [aria-label*="LaTeX"]').click();
      return {...told, saved};"""
    told = look(sweep / "report.html", script, tmp_path)
    scored, unscored = told["page"][:-1], told["page"][-1]
    assert (len(scored), unscored) == (6, None)  # what has no score stays last, however the others are sorted
    assert scored == sorted(scored, reverse=True)
    assert told["up"] == ["ascending", [*sorted(scored), None]]
    assert told["down"] == ["descending", [*scored, None]]
    assert told["again"] == ["none", told["page"]]
    assert told["filtered"][0] == [0.417]
    assert told["chosen"] == [False, True, True]
    assert told["focus"] == "Compare run 3"
    keys = {key: values for key, *values in told["differ"]}
    assert keys["key"] == ["run 0", "run 3"]
    assert keys["norm._target_"] == ["normlab.norms.batch.Batch", "normlab.norms.group.Group"]
    assert "seed" not in keys
    name, text = told["saved"]
    assert name == "configurations.tex"
    assert text.count("\\\\\n") == 2  # the heads, and the one row that is shown
    assert "0.417~$\\pm$~" in text


def test_a_phone_cuts_no_table(sweep, tmp_path):
    script = """
      document.querySelectorAll("details").forEach((each) => (each.open = true));
      const wide = [...document.querySelectorAll(".wide")];
      const cut = () => wide.filter((each) => each.scrollWidth > each.clientWidth + 1).length;
      for (let looks = 0; looks < 100 && (looks < 5 || cut()); looks++) // tables fold once they are seen to be cut
        await new Promise((go) => setTimeout(go, 100));
      const cell = document.querySelector("#configurations .folded td");
      return [document.documentElement.scrollWidth <= innerWidth, wide.length > 5,
        cut(), cell.getAttribute("role"),
        document.querySelectorAll("#configurations td[data-head='val/acc']").length > 2];"""
    assert look(sweep / "report.html", script, tmp_path, width=500) == [True, True, 0, "cell", True]


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (500, True)])
def test_axe_finds_nothing(width, dark, sweep, tmp_path):
    """axe checks a page against the rules of WCAG; pip install axe-core-python."""
    found = importlib.util.find_spec("axe_core_python")
    if found is None:
        pytest.skip("needs axe-core-python")
    axe = Path(found.submodule_search_locations[0]) / "axe.min.js"
    script = """
      document.querySelectorAll("details").forEach((each) => (each.open = true));
      document.querySelector('[aria-label="Compare run 0"]').click();
      document.querySelector('[aria-label="Compare run 5"]').click();
      await new Promise((go) => setTimeout(go, 500));
      const {violations, passes} = await axe.run(document);
      return [passes.length > 10, violations.map((each) => [each.id, each.nodes.map((node) => node.html)])];"""
    told = look(sweep / "report.html", script, tmp_path, width, dark, before=axe.read_text())
    assert told == [True, []]
