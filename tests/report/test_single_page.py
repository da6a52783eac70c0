"""The page of one run: what it says of a good one, of a half one, and of one that somebody else has made."""

import base64
import html as markup
import io
import json
import re
import shlex
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.browser import look, needs_browser
from helpers.reports import SCORES, make_run, make_sweep, page_text, rows
from lightning import LightningDataModule
from omegaconf import OmegaConf
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support, r2_score
from torch.utils.data import DataLoader, TensorDataset

from normlab import compose, run
from normlab.data.common.targets import TargetColumn
from normlab.folder.recorded import append_recorded, cut_recorded
from normlab.report import write_report
from normlab.report.__main__ import main
from normlab.report.render import library
from normlab.report.runs import read_run
from normlab.report.single import write_run_page
from normlab.report.single.answers import Answers, Look, Sample
from normlab.report.single.page import page
from normlab.report.single.story import Story


class Own(LightningDataModule):
    """A data module of a person's own, whose test part comes in another order each time."""

    def part(self):
        x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
        return x, (x[:, 0] > 0).long()

    def train_dataloader(self):
        return DataLoader(TensorDataset(*self.part()), 20)

    def val_dataloader(self):
        return self.train_dataloader()

    def test_dataloader(self):
        return DataLoader(TensorDataset(*self.part()), 20, shuffle=True)


SHORT = ["logger=none", "trainer.max_epochs=2"]


def trained(folder, *overrides, data=None):
    """A short run, its page, and what it predicts."""
    run(compose([*SHORT, *overrides]), folder=folder, data=data)
    return write_run_page(folder)


def predictions(folder):
    best = folder / "checkpoints" / "best.ckpt"
    return run(compose(["action=predict", f"ckpt={best}"])).predictions


def section(folder, title):
    """A section's tables, as lists of rows of cells."""
    text = (folder / "report.html").read_text()
    body = re.search(rf"<h2>{title}</h2>(.*?)</section>", text, flags=re.S).group(1)
    tables = re.findall(r"<tbody>(.*?)</tbody>", body, flags=re.S)
    lines = [re.findall(r"<tr.*?</tr>", table, flags=re.S) for table in tables]
    cell = r"<t[dh][^>]*>(.*?)</t[dh]>"
    clean = lambda text: markup.unescape(re.sub(r"<[^>]*>", "", text)).strip()
    return [[[clean(each) for each in re.findall(cell, row, flags=re.S)] for row in table] for table in lines]


@pytest.fixture(scope="module")
def wine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "wine"
    trained(folder, "model=net", "data=wine", "data.test_fraction=0.5")
    return folder


def test_classes_are_told_by_figures_that_scikit_learn_has_too(wine):
    table = predictions(wine)
    names = ["class_0", "class_1", "class_2"]
    matrix = confusion_matrix(table.target, table.prediction, labels=names)
    shown = section(wine, "What is taken for what")[0]
    assert [[int(cell.replace("·", "0")) for cell in row[1:]] for row in shown] == matrix.tolist()
    scores = precision_recall_fscore_support(table.target, table.prediction, labels=names)
    (classes,) = section(wine, "Scores of each class")
    assert [[row[1], row[3], row[5], row[7]] for row in classes] == [
        [str(there), *(f"{value:.3f}" for value in values)] for *values, there in zip(*scores, strict=True)
    ]
    text = page_text(wine)
    accuracy = (table.target == table.prediction).mean()
    assert f"net with norm=batch on wine reaches test/acc {accuracy:.3f} (95 % interval 0." in text
    assert "always guessing “class_1” would score 0." in text
    loss = log_loss(table.target, table[[f"p_{name}" for name in names]])
    assert f"The log loss is {loss:.4g}." in text
    assert "python train.py logger=none trainer.max_epochs=2 model=net data=wine data.test_fraction=0.5" in text


def test_the_worst_samples_are_those_with_the_least_probability_of_the_truth(wine):
    table = predictions(wine)
    said = np.array([row[f"p_{row.target}"] for _, row in table.iterrows()])
    worst = np.argsort(said)[:12]
    (shown,) = section(wine, "The worst samples")
    assert [row[0] for row in shown] == [str(table["sample"].iloc[place]) for place in worst]
    assert [float(row[4]) for row in shown] == pytest.approx(-np.log(said[worst]), rel=1e-3)


def test_norm_layers_and_parameters_are_those_of_the_checkpoint(wine):
    state = torch.load(wine / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    (layers,) = section(wine, "What the norm layers hold")
    variance = state["network.bn1.running_var"].double()
    assert layers[0][:3] == ["bn1", "BatchNorm1d", "20"]
    assert layers[0][4].startswith(f"{variance.mean():.4g} ± {variance.std(correction=0):.4g}")
    (weights,) = section(wine, "Parameters")
    assert {row[0]: row[1] for row in weights}["fc1.weight"] == "20 × 13"
    assert sum(int(row[2].replace(",", "")) for row in weights) == 383


def test_the_same_run_gives_the_same_page_and_nothing_else_is_written(wine, tmp_path):
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in wine.rglob("*") if path.is_file()}
    written = write_run_page(wine, tmp_path / "out")
    assert written.file.read_bytes() == (wine / "report.html").read_bytes()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in wine.rglob("*") if path.is_file()}
    copy = shutil.copytree(wine, tmp_path / "wine")
    write_run_page(copy)
    assert section(copy, "Scores of each class") == section(wine, "Scores of each class")


def test_the_page_fetches_nothing(wine):
    text = (wine / "report.html").read_text()
    plain = re.sub(r"<script[^>]*>.*?</script>", "", text, flags=re.S)
    assert not re.search(r"https?:|//\w|\bsrc=\"(?!data:)|\bhref=|@import|url\(", plain)
    assert "default-src 'none'" in plain


def test_numbers_are_told_by_their_residuals(tmp_path):
    written = trained(tmp_path / "x", "model=net", "data=diabetes")
    table = predictions(tmp_path / "x")
    assert f"reaches test/r2 {r2_score(table.target, table.prediction):.3f}".replace("-", "−") in written.headline
    scores, fifths = section(tmp_path / "x", "Residuals")
    off = table.prediction - table.target
    assert [row[1] for row in scores[1:4]] == [
        f"{value:.4g}".replace("-", "−") for value in (off.abs().mean(), (off**2).mean() ** 0.5, off.mean())
    ]
    assert sum(int(row[1]) for row in fifths) == len(table)
    (worst,) = section(tmp_path / "x", "The worst samples")
    assert worst[0][0] == str(table["sample"].iloc[off.abs().argmax()])


def test_labels_are_told_column_by_column(tmp_path):
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(120, 3)), columns=["a", "b", "c"])
    frame["hot"], frame["wet"] = np.where(frame.a > 0, "yes", "no"), np.where(frame.b > 0, "yes", "no")
    frame["who"] = [f"n{number}" for number in range(1, 121)]
    frame.to_csv(tmp_path / "t.csv", index=False)
    trained(
        tmp_path / "x",
        "model=net",
        "data=csv",
        f"data.path={tmp_path / 't.csv'}",
        "data.target=[hot,wet]",
        "data.keep=[who]",
    )
    table = predictions(tmp_path / "x")
    (shown,) = section(tmp_path / "x", "Scores of each label")
    for row in shown:
        true, said = table[f"target_{row[0]}"], table[f"prediction_{row[0]}"]
        precision, recall, *_ = precision_recall_fscore_support(true, said, labels=["yes"], zero_division=np.nan)
        assert row[:4] == [row[0], "yes", str((true == "yes").sum()), str((said == "yes").sum())]
        assert [row[4], row[6]] == [f"{v[0]:.3f}".replace("nan", "–") for v in (precision, recall)]
    right = np.stack([table[f"target_{name}"] == table[f"prediction_{name}"] for name in ("hot", "wet")])
    assert f"{right.sum()} of {right.size} test labels, 2 a sample, are right." in page_text(tmp_path / "x")
    (worst,) = section(tmp_path / "x", "The worst samples")
    assert all(row[5] == f"n{row[0]}" for row in worst)


def odd_table(folder):
    """A table with a name of every kind that a page could stumble over; its first gap is in a number."""
    random = np.random.default_rng(0)
    names = {"</script><b>": random.normal(50, 10, 90), "${x}": random.choice(["<i>", '"', "{{ 7 * 7 }}"], 90)}
    frame = pd.DataFrame({**names, "kind": np.where(names["</script><b>"] > 50, "<script>alert(1)</script>", "'\"&")})
    frame.iloc[random.random(90) < 0.3, 0] = np.nan
    frame.to_csv(folder / "odd.csv", index=False)
    return frame


def test_odd_names_are_shown_and_do_nothing(tmp_path):
    frame = odd_table(tmp_path)
    trained(tmp_path / "x", "model=net", "data=csv", f"data.path={tmp_path / 'odd.csv'}", "data.target=kind")
    text, seen = (tmp_path / "x" / "report.html").read_text(), page_text(tmp_path / "x")
    assert "<script>alert" not in text
    assert "<b>" not in text.replace("<b>Left out", "").replace("<b>loss", "").replace("<b>acc", "").replace(
        "<b>running", ""
    ).replace("<b>γ", "").replace("<b>β", "")
    assert "<script>alert(1)</script>" in seen
    assert "</script><b>" in seen
    assert "{{ 7 * 7 }}" in seen
    (worst,) = section(tmp_path / "x", "The worst samples")
    for row in worst:  # the cells are those of the file
        number, category = row[-2:]
        own = frame.iloc[int(row[0]) - 1]
        assert number == ("" if np.isnan(own.iloc[0]) else f"{own.iloc[0]:.5g}")
        assert category == own.iloc[1]
    (tmp_path / "odd.csv").unlink()
    written = write_run_page(tmp_path / "x")
    assert len(written.missing) == 1
    assert "there is no such file" in written.missing[0] or "odd.csv" in written.missing[0]
    assert "reaches test/acc" in written.headline  # as result.json has it
    assert section(tmp_path / "x", "What the norm layers hold")[0][0][1] == "BatchNorm1d"


def test_data_that_changed_is_not_looked_at(tmp_path):
    frame = odd_table(tmp_path)
    trained(tmp_path / "x", "model=net", "data=csv", f"data.path={tmp_path / 'odd.csv'}", "data.target=kind")
    pd.concat([frame, frame[:10]]).to_csv(tmp_path / "odd.csv", index=False)
    written = write_run_page(tmp_path / "x")
    assert "not what the run was trained on: number of samples 90 → 100" in written.missing[0]
    assert "Scores of each class" not in page_text(tmp_path / "x")


def test_images_are_shown_as_they_are(tmp_path):
    trained(tmp_path / "x", "model=net", "data=digits", "data.size=8", "data.channels=1", "trainer.max_epochs=1")
    text = (tmp_path / "x" / "report.html").read_text()
    pictures = re.findall(r'src="data:image/png;base64,([^"]*)" alt="sample \d+: (\d)', text)
    assert len(pictures) == 12
    known = load_digits()
    for encoded, digit in pictures:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded)))).astype(float)
        spread = known.images / known.images.max((1, 2), keepdims=True)
        nearest = np.abs(spread - pixels / pixels.max()).mean((1, 2)).argmin()
        assert np.abs(spread[nearest] - pixels / pixels.max()).max() < 0.01
        assert known.target[nearest] == int(digit)


def test_data_from_python_leaves_the_weights(tmp_path):
    x = np.random.default_rng(0).normal(size=(90, 4)).astype("float32")
    y = (x.sum(1) > 0).astype("int64")
    written = trained(tmp_path / "x", "model=net", data=[(x[n : n + 30], y[n : n + 30]) for n in (0, 30, 60)])
    assert "given from Python" in written.missing[0]
    assert "net with norm=batch on data given from Python reaches test/acc" in written.headline
    assert section(tmp_path / "x", "Parameters")[0][0][0] == "fc1.weight"
    assert section(tmp_path / "x", "What the norm layers hold")[0][0][2] == "20"


@pytest.mark.filterwarnings("ignore:Your `.*_dataloader`:Warning")
def test_a_data_module_of_ones_own_is_looked_at_where_it_is_trusted(tmp_path):
    own = [f"data._target_={__name__}.Own", "model=net", "trainer.max_epochs=1"]
    run(compose([*SHORT, *own]), folder=tmp_path / "x")
    written = write_run_page(tmp_path / "x")
    assert f"data._target_={__name__}.Own is neither an option in conf/" in written.missing[0]
    assert written.missing[0].endswith("--trust <package>")
    assert written.headline.startswith("net with norm=batch on Own reaches")
    written = write_run_page(tmp_path / "x", trusted=[__name__])
    assert written.missing == []
    (shown,) = section(tmp_path / "x", "The worst samples")
    x, y = Own().part()
    assert len(shown) == 12
    for row in shown:  # the test part is shuffled, and a sample stands beside its own target
        sample = [float(cell.replace("−", "-")) for cell in row[5:]]
        place = np.abs(x.numpy() - sample).max(1).argmin()
        assert np.abs(x.numpy()[place] - sample).max() < 1e-3
        assert int(row[1]) == int(y[place])


@pytest.mark.parametrize("where", ["outputs/w", pytest.param("elsewhere", marks=pytest.mark.slow)])
def test_the_commands_of_a_page_are_accepted(wine, where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(wine, tmp_path / where)
    write_run_page(folder)
    text = (folder / "report.html").read_text()
    typed = [shlex.split(markup.unescape(each)) for each in re.findall(r"<pre>(python .*?)</pre>", text)]
    assert len(typed) == (4 if where == "outputs/w" else 3)
    for python, script, *words in typed:
        assert (python, script) == ("python", "train.py")
        found = compose(words[: words.index("input=<file")] if "input=<file" in words else words)
        assert found.action == "fit" or ("name=w" in words) == (where == "outputs/w")


def test_a_run_that_kept_nothing_or_has_not_finished_says_so(tmp_path):
    make_run(tmp_path / "kept", "model=net", "data=wine", "keep=[]", score=0.9, metrics={"test/acc": 0.75})
    written = write_run_page(tmp_path / "kept")
    assert written.headline == "net with norm=batch on wine reaches test/acc 0.750."
    assert "has no checkpoint (keep=[])" in written.missing[0]
    failed = {"status": "failed", "error": "E: <b>", "score": None, "metrics": {}}
    make_run(tmp_path / "failed", "model=net", "data=wine", curve=[0.5, 0.7, 0.6], **failed)
    written = write_run_page(tmp_path / "failed")
    assert written.headline == "net with norm=batch on wine failed after 3 of 30 epochs: E: <b>."
    assert "1, of 0 to 2: val/acc 0.700" in page_text(tmp_path / "failed")
    make_run(tmp_path / "begun", "model=net", "data=wine", status="running", score=None)
    (tmp_path / "begun" / "metrics.csv").unlink()
    assert "is still running, or was killed, after 0 of" in write_run_page(tmp_path / "begun").headline
    (tmp_path / "begun" / "result.json").write_text("{")
    assert write_run_page(tmp_path / "begun").headline.startswith("net with norm=batch on wine is damaged:")


def test_somebody_elses_folder_runs_nothing(wine, tmp_path):
    copy = shutil.copytree(wine, tmp_path / "x")
    config = OmegaConf.load(copy / "config.yaml")
    config.model._target_ = "os.mkdir"
    OmegaConf.save(config, copy / "config.yaml")
    written = write_run_page(copy)
    assert "model._target_=os.mkdir is neither an option in conf/ nor a class of" in written.missing[0]
    assert section(copy, "Parameters")[0][0][0] == "fc1.weight"
    (copy / "checkpoints" / "best.ckpt").write_bytes(b"PK not a checkpoint")
    assert "is no checkpoint of normlab" in write_run_page(copy).missing[0]


def test_the_command_line(tmp_path, monkeypatch, capsys):
    def typed(*words):
        monkeypatch.setattr(sys, "argv", ["report", *words])
        main()
        return capsys.readouterr().out.splitlines()

    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "one", "model=net", "data=wine")
    lines = typed("one")
    assert (lines[0], lines[-1]) == ("net with norm=batch on wine reaches test/acc 0.500.", "one/report.html")
    make_run(tmp_path / "one" / "test", action="test")
    with pytest.raises(SystemExit, match="2"):
        typed("one/test")
    assert "give the folder above it" in capsys.readouterr().err
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="2"):
        typed("one", "--out", "file")
    assert "file is no folder; --out <folder> writes the page elsewhere" in capsys.readouterr().err
    make_sweep(tmp_path / "s", {"batch": [0.9], "group": [0.8]})
    assert typed("s", "--runs")[:2] == ["s/0/report.html", "s/1/report.html"]
    assert '<a href="1/report.html">1</a>' in (tmp_path / "s" / "report.html").read_text()


def test_the_report_of_a_sweep_links_to_the_pages_of_its_runs(tmp_path):
    sweep = make_sweep(tmp_path / "outputs" / "s p", SCORES, "name=s")
    write_report([sweep])
    assert "<a href=" not in (sweep / "report.html").read_text()
    make_run(sweep / "a#b", "model=net", "data=wine", "norm=none", "seed=4")
    for name in ("0", "2", "a#b"):
        write_run_page(sweep / name)
    assert "without one that is: python train.py model=net data=wine norm=batch seed=1 " in page_text(sweep / "0")
    write_report([sweep])
    links = re.findall(r'<a href="([^"]*)">([^<]*)</a>', (sweep / "report.html").read_text())
    assert {*links} == {("a%23b/report.html", "a#b"), ("0/report.html", "0"), ("2/report.html", "2")}
    write_report([sweep], tmp_path / "out")
    assert '<a href="../outputs/s%20p/0/report.html">0</a>' in (tmp_path / "out" / "report.html").read_text()
    assert rows(sweep)
    assert json.loads((sweep / "0" / "result.json").read_text())["status"] == "finished"


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [500, 1200])
def test_a_browser_draws_every_chart_within_the_width_of_the_page(wine, width, tmp_path):
    script = """return [document.querySelectorAll(".chart svg").length, document.querySelectorAll(".chart").length,
      document.documentElement.scrollWidth <= innerWidth];"""
    assert look(wine / "report.html", script, tmp_path, width) == [8, 8, True]


def test_many_classes_are_told_by_their_mistakes_and_an_unfinished_run_by_its_best_epoch(tmp_path):
    random = np.random.default_rng(0)
    truth, said = random.integers(0, 300, 900), random.dirichlet(np.ones(300), 900)
    said[np.arange(900), truth] += 0.01
    column = TargetColumn("", [f"c{number}" for number in range(300)])
    worst = [Sample(3, "3", 5.0, other="a sample of shape (1, 2, 3, 4)")]
    seen = Look(Answers("val", "classify", [column], truth, said / said.sum(1, keepdims=True), worst))
    folder = make_run(
        tmp_path / "x", "model=net", status="interrupted", error="by <b>", samples={"train": 9, "val": 900}
    )
    text = page(Story(read_run(folder), seen, None))
    assert "was interrupted after 2 of 30 epochs: by &lt;b&gt;" in text
    assert "Its best epoch so far reaches val/acc 0." in text
    assert "The data has no test part" in text
    assert "With 300 classes, the most frequent mistakes" in text
    assert "100 more classes are not shown" in text
    assert "a sample of shape (1, 2, 3, 4)" in text
    assert len(text.replace(library(), "")) < 300_000


def test_the_headline_names_what_an_experiment_has_chosen(tmp_path):
    folder = make_run(tmp_path / "x", "experiment=small_batch", "seed=3")
    config = compose(["experiment=small_batch"])
    names = {group: config[group]._target_.split(".")[-2] for group in ("model", "norm", "data")}
    assert write_run_page(folder).headline.startswith("{model} with norm={norm} on {data} ".format(**names))


def recorded_run(folder, rows):
    """A run with a norms.csv. rows: (step, epoch, layer, drift, variance ratio, dead), each layer of 8 channels."""
    make_run(folder, "model=net", "data=wine", curve=[0.1, 0.2, 0.3])
    cut_recorded(folder / "norms.csv", 0)
    names = ("step", "epoch", "layer", "drift", "variance_ratio", "dead")
    lines = [dict(zip(names, row, strict=True)) | {"channels": 8.0, "saturated": 0.0} for row in rows]
    append_recorded(folder / "norms.csv", lines)
    write_run_page(folder)
    return folder


def test_what_was_recorded_is_told_as_means_of_each_epoch(tmp_path):
    random = np.random.default_rng(0)
    rows = [
        (step, step // 10, layer, float(random.random()), float(random.random() * 4), float(random.integers(0, 9)))
        for step in range(0, 30, 5)
        for layer in ("conv.bn", "a,b")
    ]
    folder = recorded_run(tmp_path / "x", rows)
    table = pd.read_csv(folder / "norms.csv")
    means = table.assign(dead=table.dead / 8).groupby(["layer", "epoch"])[["drift", "variance_ratio", "dead"]].mean()
    drift, ratio, dead = section(folder, "Norm layers over the epochs")
    for column, shown in (("drift", drift), ("variance_ratio", ratio), ("dead", dead)):
        assert [row[0] for row in shown] == ["conv.bn", "a,b"]
        for layer, *cells in shown:
            assert [float(cell) for cell in cells] == pytest.approx(means[column].loc[layer].tolist(), rel=1e-3)
    text = page_text(folder)
    assert "Of 6 recorded steps, which norms.csv has one by one" in text
    assert "No layer ever had saturated channels." in text


def test_cells_are_the_darker_the_higher_and_ratios_the_further_from_one(tmp_path):
    rows = [
        (epoch, epoch, "bn", drift, ratio, 0.0) for epoch, drift, ratio in ((0, 0.1, 8.0), (1, 0.4, 1.0), (2, 0.2, 0.1))
    ]
    html = (recorded_run(tmp_path / "x", rows) / "report.html").read_text()
    shades = {}
    for name in ("drift", "variance-ratio"):
        values = re.search(rf'"recorded-{name}".*?layer,epoch,value,shade(.*?)"', html).group(1)
        shades[name] = [float(line.split(",")[3]) for line in values.split(r"\n") if line]
    assert shades["drift"] == pytest.approx([0, 1, 1 / 3], abs=1e-4)
    assert shades["variance-ratio"] == pytest.approx([np.log(8) / np.log(10), 0, 1], abs=1e-4)


def test_a_table_of_another_program_is_left_out_and_named(tmp_path):
    folder = make_run(tmp_path / "x", "model=net", "data=wine")
    (folder / "norms.csv").write_text("a,b\n")
    assert "norms.csv is empty, cut off or of another program" in " ".join(write_run_page(folder).missing) + page_text(
        folder
    )
    assert "Norm layers over the epochs" not in page_text(folder)
