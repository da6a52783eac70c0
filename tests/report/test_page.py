"""The report: what it says of good runs and of broken ones, and the page in a real browser."""

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from html import unescape

import numpy as np
import pytest
from helpers.cases import ROOT
from helpers.processes import train
from helpers.reports import SCORES, make_run, make_sweep, page_text, rows
from omegaconf import OmegaConf

from normlab import compose
from normlab.errors import ConfigError
from normlab.report import write_report
from normlab.report.single import write_run_page


def test_the_answer_names_the_winner_and_how_sure_that_is(tmp_path):
    report = write_report([make_sweep(tmp_path / "s")])
    text = page_text(tmp_path / "s")
    headline = (
        "batch has the highest val/acc 0.850 ± 0.050 (the maximum over each run’s epochs, mean ± sd over 3 seeds)"
    )
    assert f"{headline}, and test/acc 0.500 ± 0.000." in text
    assert "It is 0.017 ahead of the next, none (95 % interval −0.229 to 0.263, " in text
    assert "over the 3 seeds that all compared configurations have)" in text
    assert "That is within noise" in text
    assert "val/acc 0.850 ± 0.050".replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}") in str(report)
    found = rows(tmp_path / "s")
    assert [row["norm"] for row in found] == ["batch", "none", "group"]
    assert [row["tied_with_best"] for row in found] == ["True", "True", "False"]
    # residuals of a two-way layout of 3 × 3 have 4 degrees of freedom; SciPy's Q(0.95; 3, 4) is 5.0402, and of 2 8.3308
    table = np.array([SCORES[norm] for norm in ("batch", "group", "none")])
    rest = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    half = 5.0402 * np.sqrt((rest**2).sum() / 4 / 3)
    assert float(found[2]["behind_high"]) == pytest.approx(0.193333 + half, abs=1e-4)
    own = 8.3308 * np.sqrt(np.var(table[0] - table[2], ddof=1) / 2 / 3)  # three times the others' spread may be
    assert float(found[1]["behind_high"]) == pytest.approx(0.016667 + own, abs=1e-4)
    assert "none is compared by the variance of the pair alone" in text
    assert [found[2]["lost_rate"], found[2]["seeds"]] == ["0", "3"]
    summary = (tmp_path / "s" / "summary.md").read_text()
    assert "python train.py -m model=net data=wine norm=batch seed=1,2,3" in summary
    assert summary.count("\n| ") == 5


def test_a_clear_winner_is_called_one_and_the_lowest_wins_where_less_is_better(tmp_path):
    lower = {"score_name": "val/mse", "score_mode": "min"}
    write_report([make_sweep(tmp_path / "s", {"batch": [2.0, 2.1, 2.2], "group": [1.0, 1.1, 1.21]}, **lower)])
    text = page_text(tmp_path / "s")
    assert "group has the lowest val/mse" in text
    assert "That is more than noise, for these samples." in text
    assert "the minimum over each run’s epochs" in text
    assert float(rows(tmp_path / "s")[1]["behind_best"]) > 0.9


def test_one_seed_says_nothing_about_noise(tmp_path):
    write_report([make_sweep(tmp_path / "s", {"batch": [0.9], "group": [0.8]})])
    text = page_text(tmp_path / "s")
    assert "With one seed nothing is known about noise" in text
    assert "more than noise" not in text
    assert "±" not in text


def test_many_comparisons_need_more_than_two(tmp_path):
    """The same pair is beyond noise alone, and not among eight, where the others bring no more than their own noise."""
    pair = {"batch": [0.90, 0.91, 0.92], "group": [0.880, 0.894, 0.893]}
    chance = np.random.default_rng(0)
    others = {f"o{n}": chance.normal(0.87, 0.012, 3).round(4).tolist() for n in range(6)}
    for number, (name, values) in enumerate((pair | others).items()):
        for seed, score in enumerate(values):
            typed = f"norm={name}" if name in pair else f"optimizer.lr=0.{number}1"
            make_run(tmp_path / "s" / f"{number}{seed}", typed, f"seed={seed}", score=score)
    write_report([tmp_path / "s"])
    assert "That is within noise" in page_text(tmp_path / "s")
    for path in (tmp_path / "s").glob("[2-9]?"):
        shutil.rmtree(path)
    write_report([tmp_path / "s"])
    assert "That is more than noise" in page_text(tmp_path / "s")


def test_the_headline_of_the_summary_is_escaped_like_its_table(tmp_path):
    for number, score in enumerate((0.9, 0.8)):
        made = ["model=net", "data=wine", f"+model.word='a|<b>{number}'"]
        make_run(tmp_path / "s" / str(number), "model=net", "data=wine", score=score, overrides=made)
    write_report([tmp_path / "s"])
    summary = (tmp_path / "s" / "summary.md").read_text()
    prose = summary[: summary.index("```")]
    assert prose.count("a\\|&lt;b>0") >= 2
    assert "<b>" not in prose


def test_failed_and_half_written_runs_are_told_and_do_not_count(tmp_path):
    sweep = make_sweep(tmp_path / "s", {"batch": [0.9, 0.8], "group": [0.7, 0.6]})
    base = ["model=net", "data=wine"]
    make_run(
        sweep / "4",
        *base,
        "norm=batch",
        "seed=3",
        score=None,
        status="failed",
        error="E: <script>alert(1)</script> | x",
    )
    make_run(sweep / "5", *base, "norm=group", "seed=3", score=0.99, status="running")
    make_run(sweep / "6", *base, "norm=none", "seed=1", score=0.99, status="pruned")
    make_run(sweep / "7", *base, "norm=none", "seed=2", score=None)  # NaN is written as null
    (make_run(sweep / "8", *base, "norm=none", "seed=3") / "result.json").unlink()
    cut = make_run(sweep / "9", *base, "norm=none", "seed=4") / "result.json"
    cut.write_text(cut.read_text()[:60])
    refused = make_run(sweep / "10", *base, "norm=none", "seed=5", score=None, status="refused", error="too small")
    (refused / "config.yaml").unlink()  # it is written once the network stands
    (refused / "metrics.csv").unlink()
    write_report([sweep])
    text, html = page_text(sweep), (sweep / "report.html").read_text()
    assert "11: 5 finished, 2 unfinished, 1 failed, 1 pruned, 1 damaged, 1 refused" in text
    assert "batch has the highest val/acc 0.850 ± 0.071" in text
    assert "1 of its 3 runs were lost" in text
    table = re.search(r"<h2>Runs without a score</h2>.*?<tbody>(.*?)</tbody>", html, re.S).group(1)
    lines = [re.findall(r"<td[^>]*>(.*?)</td>", line) for line in table.split("</tr>")[:-1]]
    told = {number: line[1:3] for line in lines for number in re.findall(r"/s/(\d+)", line[4])}
    assert {number: status for number, (status, _) in told.items()} == {
        "4": "failed",
        "5": "unfinished",
        "6": "pruned",
        "7": "no score",
        "8": "unfinished",
        "9": "damaged",
        "10": "refused",
    }
    assert told["10"][1] == "too small"
    assert told["9"][1] == "result.json is empty, cut off or of another program"
    assert lines[0][0] == "2"  # the most frequent reason first
    assert "alert(1)" in text
    assert "<script>alert(1)" not in html
    none = next(row for row in rows(sweep) if row["norm"] == "none")
    assert (none["val/acc"], none["seeds"], none["runs_without_score"]) == ("", "0", "5")
    assert [row["norm"] for row in rows(sweep)][-1] == "none"


def test_a_cut_or_empty_metrics_csv_costs_its_last_row_only(tmp_path):
    sweep = make_sweep(tmp_path / "s", {"batch": [0.9], "group": [0.8]})
    (sweep / "0" / "metrics.csv").write_text("epoch,val/acc\n0,0.5\n1,\n2,nan\n3,0.625\n4,0.12")
    (sweep / "1" / "metrics.csv").write_text("")
    write_report([sweep])
    html = (sweep / "report.html").read_text()
    assert r"r,e,v\n0,0,0.5\n0,3,0.625\n" in html
    (sweep / "0" / "metrics.csv").unlink()
    write_report([sweep])
    assert "No run has val/acc in its metrics.csv" in page_text(sweep)


def test_what_cannot_be_reported_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        write_report([tmp_path / "missing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no run"):
        write_report([tmp_path / "empty"])
    newer = make_run(tmp_path / "newer" / "0", format=2)
    with pytest.raises(ConfigError, match=r"format 2.*update normlab"):
        write_report([newer.parent])
    mixed = make_sweep(tmp_path / "mixed", {"batch": [0.9]})
    make_run(mixed / "1", "data=diabetes", score_name="val/r2")
    with pytest.raises(ConfigError, match=r"val/acc \(max\), such as .*mixed/0\n  val/r2 \(max\), such as .*mixed/1"):
        write_report([mixed])
    assert not list(tmp_path.rglob("report.html"))


def test_runs_of_older_versions_count(tmp_path):
    sweep = make_sweep(tmp_path / "s", {"batch": [0.9, 0.8], "group": [0.7, 0.6]})
    for path in sweep.iterdir():
        result = json.loads((path / "result.json").read_text())
        for key in ("score_mode", "parameters", "seconds", "error", "format"):
            del result[key]
        (path / "result.json").write_text(json.dumps(result))
        config = OmegaConf.load(path / "config.yaml")
        del config["callbacks"], config["task"], config.data["fold"]
        OmegaConf.save(config, path / "config.yaml")
    write_report([sweep])
    assert [(row["norm"], row["seeds"]) for row in rows(sweep)] == [("batch", "2"), ("group", "2")]


def test_configurations_are_told_apart_by_what_differs(tmp_path):
    """By what was typed, with the default for those that typed nothing, and by what another version composed."""
    make_run(tmp_path / "0", "model=net", "data=wine", "seed=1", "name=a")
    make_run(tmp_path / "1", "model=net", "data=wine", "norm=batch", "seed=2", "name=b")
    make_run(tmp_path / "2", "model=net", "data=wine", "norm=group", "seed=1", "optimizer.lr=0.050")
    make_run(tmp_path / "3", "model=net", "data=wine", "norm=group", "seed=1", config={"optimizer.momentum": 0.5})
    make_run(tmp_path / "4", "model=net", "data=wine", "norm=group", "seed=1")
    write_report([tmp_path])
    found = {(r["norm"], r["optimizer.lr"], r["optimizer.momentum"]): r["seeds"] for r in rows(tmp_path)}
    groups = [("group", rate, momentum) for rate, momentum in (("0.05", "0.9"), ("0.02", "0.5"), ("0.02", "0.9"))]
    assert found == {("batch", "0.02", "0.9"): "2"} | dict.fromkeys(groups, "1")


def test_a_run_that_is_there_twice_counts_once(tmp_path):
    sweep = make_sweep(tmp_path / "s", {"batch": [0.9, 0.8], "group": [0.7, 0.6]})
    shutil.copytree(sweep / "0", tmp_path / "again")
    write_report([sweep, tmp_path / "again", sweep / "0"], tmp_path / "out")
    assert rows(tmp_path / "out")[0]["seeds"] == "2"
    assert "1 run with the settings and the seed of another counted once" in page_text(tmp_path / "out")


def test_data_sets_are_answered_apart(tmp_path):
    for number, (data, norm, score) in enumerate(
        [("wine", "batch", 0.9), ("wine", "group", 0.8), ("iris", "batch", 0.6), ("iris", "group", 0.7)]
    ):
        make_run(tmp_path / str(number), "model=net", f"data={data}", f"norm={norm}", score=score)
    write_report([tmp_path])
    text = page_text(tmp_path)
    assert "data=wine batch has the highest" in text
    assert "data=iris group has the highest" in text


def test_a_configuration_far_off_does_not_flatten_the_chart_of_the_others(tmp_path):
    near = {"batch": [0.90], "group": [0.91], "layer": [0.92], "none": [0.93]}
    write_report([make_sweep(tmp_path / "s", near | {"instance": [0.1]})])
    assert "Not drawn: instance (0.100)." in page_text(tmp_path / "s")
    assert len(rows(tmp_path / "s")) == 5
    write_report([make_sweep(tmp_path / "t", near)])
    assert "Not drawn" not in page_text(tmp_path / "t")


def test_what_other_actions_wrote_is_no_run(tmp_path):
    sweep = make_sweep(tmp_path / "s", {"batch": [0.9], "group": [0.8]})
    make_run(sweep / "0" / "test", score=1.0)
    make_run(tmp_path / "s" / "x" / "lr_find", action="lr_find", score=1.0)
    write_report([sweep])
    assert "2: 2 finished" in page_text(sweep)


def test_the_command_of_the_best_is_one_that_composes(tmp_path):
    make_run(
        tmp_path / "0", "model=net", "data=wine", "seed=7", "+trainer.max_time=null", "task.metrics=[acc,f1]", "name=x"
    )
    make_run(tmp_path / "1", "model=net", "data=wine", "seed=7", "norm=group", score=0.1)
    write_report([tmp_path])
    command = re.search(r"<pre>(.*?)</pre>", (tmp_path / "report.html").read_text()).group(1)
    python, script, *typed = shlex.split(unescape(command))
    assert (python, script) == ("python", "train.py")
    found = compose(typed)
    assert (found.seed, list(found.task.metrics), found.name) == (7, ["acc", "f1"], None)


def test_the_command_line(tmp_path):
    sweep = make_sweep(tmp_path / "s")
    code = "import sys, normlab.report.after; from normlab.report.__main__ import main; main()"
    code += "; sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "s"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "That is within noise" in done.stdout
    assert done.stdout.rstrip().endswith("s/report.html, summary.md, summary.csv")
    assert (sweep / "report.html").is_file()
    command = [sys.executable, "-m", "normlab.report", "t"]
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr[:26]) == (2, "refused: t: no such folder")


@pytest.mark.slow
def test_a_sweep_with_a_failed_job_ends_in_a_report(tmp_path):
    typed = ["-m", "model=net", "data=wine", "trainer=debug", "logger=none", "norm=instance,group,batch", "seed=1,2"]
    done = train(*typed, "name=s", cwd=tmp_path, check=1)
    sweep = tmp_path / "outputs" / "s"
    assert "outputs/s/report.html" in done.stdout
    text = page_text(sweep)
    assert "6: 4 finished, 2 refused" in text
    assert "norm=instance takes its statistics over space" in text
    assert f"python train.py {shlex.join(typed)} name=s" in text
    assert {row["norm"] for row in rows(sweep)} == {"instance", "group", "batch"}


@pytest.mark.parametrize(("code", "finished", "written"), [(0, 1, 1), (1, 0, 1), (130, 0, 0), (130, 1, 1), (2, 1, 0)])
def test_the_exit_code_of_a_sweep_stays(code, finished, written, tmp_path, monkeypatch):
    from normlab.report import after

    make_run(tmp_path / "0", status="finished" if finished else "failed", score=0.9 if finished else None)
    assert after.report_sweep(tmp_path, code) == code
    assert (tmp_path / "report.html").is_file() == bool(written)


@pytest.mark.parametrize("code", [0, 1, 130])
def test_a_report_that_fails_says_so_and_hides_no_exit_code(code, tmp_path, monkeypatch, capsys):
    from normlab.report import after

    make_run(tmp_path / "0")
    make_run(tmp_path / "1", score_name="val/loss", score_mode="min")
    assert after.report_sweep(tmp_path, code) == (code or 1)
    assert "no report of" in capsys.readouterr().err


def test_the_page_fetches_nothing(tmp_path):
    write_report([make_sweep(tmp_path / "s")])
    html = (tmp_path / "s" / "report.html").read_text()
    markup = re.sub(r"<script[^>]*>.*?</script>", "", html, flags=re.S)
    assert not re.search(r"https?:|//\w|\bsrc=|\bhref=|@import|url\(", markup)
    assert "default-src 'none'" in markup
    charts = html[html.rindex('id="charts">') :]
    assert not re.search(r'"url"|http', charts.replace("https://vega.github.io/schema/vega-lite/", ""))


@pytest.mark.slow
def test_five_hundred_runs_are_a_small_page(tmp_path):
    spec = importlib.util.spec_from_file_location("report_benchmark", ROOT / "benchmarks" / "report.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    benchmark.make_runs(tmp_path / "s", 500, 300)
    write_report([tmp_path / "s"])
    assert (tmp_path / "s" / "report.html").stat().st_size < 5e6
    assert len(rows(tmp_path / "s")) == 20


def test_a_search_shows_its_study(tmp_path):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sweep = tmp_path / "s"
    sweep.mkdir()
    study = optuna.create_study(storage=f"sqlite:///{sweep / 'study.db'}", directions=["maximize", "minimize"])
    study.set_user_attr("objectives", ["score", "seconds"])
    for number in range(14):
        trial = study.ask()
        rate = trial.suggest_float("optimizer.lr", 0.001, 1, log=True)
        make_run(sweep / str(number), "model=net", "data=wine", f"optimizer.lr={rate}", score=1 - rate)
        study.tell(trial, [1 - rate, 1 + rate / 2 if number % 2 else 3 - rate])
    write_report([sweep])
    text = page_text(sweep)
    for title in ("The search so far", "The trade-off", "What mattered in the search"):
        assert title in text
    html = (sweep / "report.html").read_text()
    front = {trial.number for trial in study.best_trials}
    assert {int(n) for n in re.findall(r",True,[^,\\]*/(\d+)\\n", html)} == front
    assert '"type":"log"' in html  # 14 rates over three decades: a dot each
    (sweep / "study.db").write_bytes(b"SQLite format 3 but cut")
    write_report([sweep])
    assert "The search's own plots are left out" in page_text(sweep).replace("’", "'")


def test_pruned_trials_show_where_they_stopped(tmp_path):
    optuna = pytest.importorskip("optuna")
    study = optuna.create_study(storage=f"sqlite:///{tmp_path / 'study.db'}", direction="maximize")
    study.set_user_attr("objectives", ["score"])
    for number, score in enumerate([0.5, 0.7, None]):
        trial = study.ask()
        trial.report(0.125, 3)
        study.tell(trial, score, state=optuna.trial.TrialState.PRUNED if score is None else None)
        make_run(
            tmp_path / str(number), "model=net", f"seed={number}", score=score, status="finished" if score else "pruned"
        )
    write_report([tmp_path])
    assert re.search(rf"2,0.125,{tmp_path / '2'},3", (tmp_path / "report.html").read_text())
    assert "crosses were pruned there" in page_text(tmp_path)


def test_what_always_guessing_one_class_would_score_stands_on_the_page(tmp_path):
    make_sweep(tmp_path / "known", {"batch": [0.9, 0.8]}, majority={"val": 0.875, "test": 0.75})
    make_sweep(tmp_path / "older", {"batch": [0.9, 0.8]})
    for name in ("known", "older"):
        write_report([tmp_path / name])
    assert "val/acc 0.875, test/acc 0.75" in page_text(tmp_path / "known")
    assert "always one class" not in page_text(tmp_path / "older")


def test_a_repeat_that_ran_nothing_does_not_make_the_report_again(tmp_path, monkeypatch, capsys):
    from normlab.report import after

    sweep, made = make_sweep(tmp_path / "s", {"batch": [0.9, 0.8], "group": [0.7, 0.6]}), []
    make_run(sweep / "4", "model=net", "data=wine", "norm=none", score=None, status="failed", error="a --> b")
    real = after.write_report
    monkeypatch.setattr(after, "write_report", lambda folders: made.append(folders) or real(folders))

    def again():
        made.clear()
        assert after.report_sweep(sweep, 0) == 0
        return len(made)

    assert again() == 1
    first, page = capsys.readouterr().out, (sweep / "report.html").read_bytes()
    assert again() == 0
    assert capsys.readouterr().out == first
    assert "0.700" in (sweep / "report.html").read_text()
    assert (sweep / "report.html").read_bytes() == page
    result = sweep / "2" / "result.json"
    result.write_text(result.read_text().replace("0.7", "0.75"))
    assert (again(), again()) == (1, 0)
    (sweep / "summary.md").unlink()
    assert (again(), again()) == (1, 0)
    write_run_page(sweep / "0")  # the report links to it
    assert (again(), again()) == (1, 0)
    real([sweep])  # by hand, over the other: it has no note of what it rests on
    assert (again(), again()) == (1, 0)
