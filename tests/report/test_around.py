"""Looking around: all runs as data of the page, failures by their reasons, and axes as they were searched."""

import itertools
import json
import re
from html import unescape

import pytest
import yaml
from helpers.cases import rest_slow
from helpers.reports import make_run, make_sweep

from normlab.report import write_report
from normlab.report.runs import read_config

BASE = ("model=net", "data=wine")


def grid(folder, name):
    """What the script of a table is given."""
    html = (folder / "report.html").read_text()
    after = html.split(f'<div class="grid" id="{name}">')[1]
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', after, re.S).group(1))


def cells(folder, name):
    html = (folder / "report.html").read_text().split(f'<div class="grid" id="{name}">')[1].split("</table>")[0]
    lines = html.split("<tbody>")[1].split("</tr>")[:-1]
    return [[unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", line)] for line in lines]


def test_the_first_configurations_stand_in_the_page_and_all_in_its_data(tmp_path):
    for number in range(30):
        make_run(tmp_path / str(number), *BASE, f"optimizer.lr={0.01 + number / 1000}", score=0.9 - number / 100)
    write_report([tmp_path])
    given = grid(tmp_path, "configurations")
    assert [head for head, _ in given["heads"]][:3] == ["rank", "optimizer.lr", "val/acc"]
    assert len(given["rows"]) == 30
    assert cells(tmp_path, "configurations") == given["rows"][: given["first"]]
    assert given["rows"][29][1:3] == ["0.039", "0.610"]
    assert given["best"] == [0]


def test_any_two_runs_can_be_compared_by_their_whole_configuration(tmp_path):
    """Also in keys that were never typed; what all runs share is not repeated."""
    make_run(tmp_path / "0", *BASE, "seed=1")
    make_run(tmp_path / "1", *BASE, "seed=2", "norm=group", config={"optimizer.momentum": 0.5, "data.root": "/home/me"})
    make_run(tmp_path / "2", *BASE, "seed=2")
    write_report([tmp_path])
    given = grid(tmp_path, "runs")
    names = [row[0] for row in given["rows"]]
    configs = {key: dict(zip(names, (of["values"][place] for place in of["of"]), strict=True))
               for key, of in given["configs"].items()}  # fmt: skip
    assert configs["seed"] == {"0": "1", "1": "2", "2": "2"}
    assert configs["optimizer.momentum"] == {"0": "0.9", "1": "0.5", "2": "0.9"}
    assert configs["norm._target_"]["1"].endswith("Group")
    assert "optimizer.lr" not in configs
    assert "overrides" not in configs
    assert "/home/me" not in (tmp_path / "report.html").read_text()


def test_runs_of_several_folders_keep_names_apart(tmp_path):
    for sweep in ("a", "b"):
        make_run(tmp_path / sweep / "0", *BASE, f"norm={'batch' if sweep == 'a' else 'group'}")
    write_report([tmp_path])
    assert {row[0] for row in grid(tmp_path, "runs")["rows"]} == {"a/0", "b/0"}


def test_failed_runs_are_grouped_by_reason_with_what_they_share(tmp_path):
    sweep = make_sweep(tmp_path / "s", {"batch": [0.9, 0.8], "group": [0.7, 0.6]})
    for number, (norm, error) in enumerate([
        ("none", "RuntimeError: the loss is NaN in epoch 3"), ("none", "RuntimeError: the loss is NaN in epoch 12"),
        ("batch", "OSError: disk full"),
    ]):  # fmt: skip
        typed = (*BASE, f"norm={norm}", f"seed={number + 7}")
        make_run(sweep / f"x{number}", *typed, score=None, status="failed", error=error)
    report = write_report([sweep])
    table = (sweep / "report.html").read_text().split("<h2>Runs without a score</h2>")[1].split("</table>")[0]
    lines = [re.findall(r"<td[^>]*>(.*?)</td>", line) for line in table.split("</tr>")[1:-1]]
    assert [line[:4] for line in lines] == [
        ["2", "failed", "RuntimeError: the loss is NaN in epoch 3", "norm=none"],
        ["1", "failed", "OSError: disk full", "–"],
    ]
    assert "- 2 × failed: RuntimeError: the loss is NaN in epoch 3" in (sweep / "summary.md").read_text()
    assert "3 runs without a score" in str(report)


SPACES = ("tag(log,interval(0.01,0.3))", "interval(0.01,0.3)")


@pytest.mark.parametrize(
    ("space", "typed"),
    rest_slow(itertools.product(SPACES, (True, False)), {(SPACES[0], False), (SPACES[1], True)}.__contains__),
)
def test_what_was_searched_in_log_has_a_logarithmic_axis(space, typed, tmp_path):
    """Over less than two decades nothing but the search itself tells."""
    for number, rate in enumerate((0.02, 0.05, 0.11, 0.17, 0.25)):
        make_run(tmp_path / str(number), *BASE, f"optimizer.lr={rate}", f"data.batch_size={16 + number % 2 * 16}")
    hydra = {"overrides": {"task": [*BASE, f"optimizer.lr={space}"] if typed else [*BASE], "hydra": []}}
    hydra["sweeper"] = {"params": None if typed else {"optimizer.lr": space}}
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump({"hydra": hydra}))
    write_report([tmp_path])
    html = (tmp_path / "report.html").read_text()
    drawings = {chart["name"]: json.dumps(chart["drawing"]) for chart in charts(html)}
    assert ('"type": "log"' in drawings["effect-optimizer-lr"]) == ("log" in space)
    lowest, middle = re.findall(r"optimizer.lr,(0|0.5),([\d.]+)\\n", drawings["parallel"])[:2]
    assert (lowest[1], middle[1]) == ("0.02", "0.0707" if "log" in space else "0.135")  # the mean, geometric or not


def charts(html):
    return json.loads(re.search(r'id="charts">(.*?)</script>', html, re.S).group(1))


@pytest.mark.parametrize("text", [
    "a: 1\nb:\n- x\n- y: 2\nc:\n  d: {e: 1}\n",
    "# head\ndefaults:\n  - a\nseed: 1 # why\n",
    "a: &x {b: 1}\nc: *x\n",
    'a: "one\n\n  two: three"\nb: |\n  text: x\n\n  more\nc: 1\n',
    "a: {b: 1,\n  c: 2}\nd: [1,\n 2]\n",
    "---\na: 1\n", "a: 1\na: 2\n", "a: [1\nb: 2\n", "- a\n- b\n", "", "a: 1\n---\nb: 2\n", "true: 1\nx: yes\n1: 2\n",
    "a:\n  b: 1\n c: 2\n",
])  # fmt: skip
def test_a_configuration_that_is_read_in_parts_is_the_whole_one(text, tmp_path):
    (tmp_path / "config.yaml").write_text(text)
    try:
        whole = yaml.safe_load(text)
    except yaml.YAMLError:
        whole = {}
    assert read_config(tmp_path / "config.yaml") == (whole if isinstance(whole, dict) else {})
