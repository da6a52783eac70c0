"""Several columns to learn at once: numbers, and labels of two classes each, against scikit-learn and plain sums."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
import torch
from lightning import LightningDataModule
from sklearn import metrics
from sklearn.utils.class_weight import compute_class_weight
from torch.utils.data import DataLoader, TensorDataset

from normlab import compose, run
from normlab.data.common.splits import Splitter
from normlab.data.csv import Csv
from normlab.errors import ConfigError
from normlab.runner.build import build

ROWS = 160
TABLE = ["model=net", "data=csv", "data.path=table.csv", "logger=none", "data.batch_size=16"]
NUMBERS = ["data.target=[price,rent]", "data.drop=[rain,snow,hue]"]
LABELS = ["data.target=[rain,snow]", "data.drop=[price,rent,hue]"]


def weather() -> pd.DataFrame:
    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS, 3)).round(3)
    frame = pd.DataFrame(x, columns=["a", "b", "c"])
    frame["price"], frame["rent"] = (x[:, 0] * 3 + 100).round(3), (x[:, 1] * 50 - x[:, 2]).round(3)
    frame["rain"], frame["snow"] = np.where(x[:, 0] > 0.3, "yes", "no"), (x[:, 1] > 1).astype(int)
    frame["hue"] = random.choice(["red", "green", "blue"], ROWS)
    return frame


@pytest.fixture
def frame(tmp_path, monkeypatch) -> pd.DataFrame:
    monkeypatch.chdir(tmp_path)
    table = weather()
    table.to_csv("table.csv", index=False)
    return table


def best_of(result) -> str:
    return f"ckpt={result.folder}/checkpoints/best.ckpt"


@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    """A fit of the numbers and one of the labels, and the predictions of their test parts and of new rows."""
    folder = tmp_path_factory.mktemp("fits")
    weather().to_csv(folder / "table.csv", index=False)
    weather()[["c", "b", "a"]].to_csv(folder / "new.csv", index=False)
    weighted = ["task.class_weights=balanced", "task.metrics=[acc,f1,precision,exact_match,confusion_matrix]"]
    results = {}
    for name, typed in {"numbers": NUMBERS, "labels": [*LABELS, *weighted]}.items():
        typed = [*TABLE, *typed, f"data.path={folder}/table.csv", "trainer.max_epochs=3"]
        result = run(compose(typed), folder=folder / name)
        predict = ["action=predict", best_of(result)]
        new = run(compose([*predict, f"input={folder}/new.csv"])).predictions
        results[name] = result, run(compose(predict)).predictions, new
    return results


def test_numbers_are_measured_as_scikit_learn_measures_them(fits):
    result, tested, new = fits["numbers"]
    assert list(tested) == ["sample", "target_price", "target_rent", "prediction_price", "prediction_rent"]
    assert list(new) == ["sample", "prediction_price", "prediction_rent"]
    rows = weather().iloc[[int(number) - 1 for number in tested["sample"]]]
    truth, answers = rows[["price", "rent"]].to_numpy(), tested[["prediction_price", "prediction_rent"]].to_numpy()
    np.testing.assert_allclose(tested[["target_price", "target_rent"]].to_numpy(), truth, rtol=1e-6)
    for name, measure in (
        ("r2", metrics.r2_score),
        ("mse", metrics.mean_squared_error),
        ("mae", metrics.mean_absolute_error),
    ):
        assert result.metrics[f"test/{name}"] == pytest.approx(measure(truth, answers), rel=1e-4)
    written = json.loads((result.folder / "result.json").read_text())
    assert (written["score_name"], written["score"]) == ("val/r2", result.score)


def test_each_column_of_numbers_is_standardised_by_itself(frame, tmp_path):
    data = Csv("table.csv", ["price", "rent"], drop=["rain", "snow", "hue"])
    data.setup()
    task = build(compose([*TABLE, *NUMBERS]), tmp_path / "run").task
    y = data.splits["train"][1].numpy().astype(float)
    assert task.target_mean.numpy() == pytest.approx(y.mean(0))
    assert task.target_std.numpy() == pytest.approx(y.std(0))


def test_labels_are_measured_as_scikit_learn_measures_them(fits):
    result, tested, new = fits["labels"]
    said = ["prediction_rain", "prediction_snow", "p_rain=yes", "p_snow=1"]
    assert list(tested) == ["sample", "target_rain", "target_snow", *said]
    assert list(new) == ["sample", *said]
    rows = weather().iloc[[int(number) - 1 for number in tested["sample"]]]
    truth = np.stack([rows["rain"] == "yes", rows["snow"] == 1], axis=1)
    assert (tested["target_rain"].tolist(), tested["target_snow"].tolist()) == (
        rows["rain"].tolist(),
        rows["snow"].astype(str).tolist(),
    )
    answers = tested[["p_rain=yes", "p_snow=1"]].to_numpy() > 0.5
    assert (tested["prediction_rain"] == "yes").tolist() == answers[:, 0].tolist()
    assert (tested["prediction_snow"] == "1").tolist() == answers[:, 1].tolist()
    of = {"average": "macro", "zero_division": 0}
    for name, expected in {
        "acc": (truth == answers).mean(),
        "exact_match": metrics.accuracy_score(truth, answers),
        "f1": metrics.f1_score(truth, answers, **of),
        "precision": metrics.precision_score(truth, answers, **of),
    }.items():
        assert result.metrics[f"test/{name}"] == pytest.approx(expected, abs=1e-6), name
    (_, *table) = csv.reader((result.folder / "confusion_matrix_test.csv").read_text().splitlines())
    expected = metrics.multilabel_confusion_matrix(truth, answers).reshape(2, 4)
    assert table == [["rain", *map(str, expected[0])], ["snow", *map(str, expected[1])]]


def test_always_guessing_the_usual_class_of_each_column_is_told(fits):
    result, tested, _ = fits["labels"]
    guess = np.mean([tested[name].value_counts(normalize=True).max() for name in ("target_rain", "target_snow")])
    assert json.loads((result.folder / "result.json").read_text())["majority"]["test"] == pytest.approx(guess)


def test_a_loaded_run_measures_the_same(fits):
    for result, _, _ in fits.values():
        again = run(compose(["action=test", best_of(result)])).metrics
        assert again == {name: value for name, value in result.metrics.items() if name.startswith("test/")}


@pytest.mark.parametrize("weights", ["null", "balanced"])
def test_the_loss_of_labels_is_the_mean_of_plain_logarithms(frame, tmp_path, weights):
    parts = build(compose([*TABLE, *LABELS, f"task.class_weights={weights}"]), tmp_path / "run")
    output, target = torch.randn(6, 2), torch.tensor([[0, 1], [1, 1], [0, 0], [1, 0], [1, 1], [0, 0]])
    y, expected = parts.data.splits["train"][1].numpy(), 0.0
    for row in range(6):
        for column in range(2):
            label, p = int(target[row, column]), 1 / (1 + np.exp(-output[row, column].item()))
            of = compute_class_weight("balanced", classes=np.array([0, 1]), y=y[:, column])[label]
            expected -= np.log(p if label else 1 - p) * (of if weights == "balanced" else 1) / 12
    assert parts.task.loss(output, target).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["data.target=[price,rain]"], "price is a number, rain has 2 classes; columns are learned together where all"),
        (["data.target=[rain,hue,snow]"], "rain has 2 classes, hue has 3 classes, snow has 2 classes; columns are"),
        (["data.target=[price,rain]", "data.task=classify"], "the target column price has 1.. different values"),
        (["data.target=[rain,rain]"], r"data.target=\[rain,rain\]: rain stands there twice"),
        (["data.target=[]"], r"data.target=\[\]: name the column to learn, or several of them"),
        (["data.target=[rain,snw]", "data.drop=[hu]"], "2 problems:\n.*no column snw; did you mean snow.*\n.*hu"),
        ([*LABELS, "data.label_noise=0.1"], "data.label_noise=0.1: this data has no classes of which a sample has one"),
        ([*LABELS, "loss=cross_entropy"], "loss: CrossEntropyLoss of .* so it cannot train this task"),
        ([*LABELS, "loss=focal"], "loss: focal of .* so it cannot train this task"),
        ([*LABELS, "loss=mse"], "loss: MSELoss of .* so it cannot train this task"),
        ([*LABELS, "task.metrics=[r2]"], "task.metrics: r2 is no metric of this task"),
        ([*NUMBERS, "task.class_weights=balanced"], "task.class_weights=balanced: this data has no classes"),
    ],
    ids=str,
)
def test_columns_and_losses_that_do_not_go_together_are_refused(frame, typed, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        build(compose([*TABLE, *typed]), tmp_path / "run")


@pytest.mark.parametrize(
    "loss",
    ["torch.nn.BCEWithLogitsLoss", "torch.nn.MultiLabelSoftMarginLoss", "torchvision.ops.sigmoid_focal_loss"],
)
def test_losses_of_labels_train(frame, loss, tmp_path):
    more = ["+loss.reduction=mean"] if "focal" in loss else []
    task = build(compose([*TABLE, *LABELS, f"loss._target_={loss}", *more]), tmp_path / "run").task
    assert torch.isfinite(task.loss(torch.randn(4, 2), torch.tensor([[0, 1]] * 4)))


def test_columns_that_predictions_have_cannot_be_kept(frame):
    frame.rename(columns={"a": "prediction_rain", "b": "target"}).to_csv("table.csv", index=False)
    with pytest.raises(ConfigError, match=r"data.keep=\[prediction_rain\]: predictions have a column of this name"):
        compose([*TABLE, *LABELS, "data.keep=[prediction_rain]"])
    compose([*TABLE, *LABELS, "data.keep=[target]"])


def test_parquet_teaches_the_same_columns(frame, tmp_path):
    frame.to_parquet("table.parquet")
    both = []
    for kind in ("csv", "parquet"):
        config = compose(["model=net", f"data={kind}", f"data.path=table.{kind}", "data.batch_size=16", *LABELS])
        both.append(build(config, tmp_path / kind).data.splits["train"])
    (x, y), (other_x, other_y) = both
    assert torch.equal(y, other_y)
    torch.testing.assert_close(x, other_x)


# splits


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("folds", [None, 5])
def test_rare_labels_are_shared_among_the_parts(seed, folds):
    random = np.random.default_rng(seed)
    y = torch.from_numpy((random.random((400, 6)) < random.uniform(0.1, 0.6, 6)).astype(np.int64))
    y[:, 0] = torch.from_numpy((random.permutation(400) < 20).astype(np.int64))  # the rarest of all
    parts = Splitter(0.15, 0.2, seed, folds, 0, ()).split(y)
    assert sorted(torch.cat([*parts.values()]).tolist()) == list(range(400))
    for part, expected in {"val": 16 / folds if folds else 3, "test": 4}.items():
        assert abs(int(y[parts[part]][:, 0].sum()) - expected) <= 1, part
        shares = y[parts[part]].double().mean(0) - y.double().mean(0)
        assert shares.abs().max() < 0.25


@pytest.mark.parametrize("fractions", [(0.15, 0.2), (0.4, 0.4), (0.01, 0.01), (0.5, 0.0)])
def test_labels_of_any_kind_can_be_split(fractions):
    random = np.random.default_rng(0)
    for size in (5, 9, 30, 200):
        for share in (0.0, 0.02, 0.5, 1.0):
            y = torch.from_numpy((random.random((size, 8)) < share).astype(np.int64))
            parts = Splitter(*fractions, 0, None, 0, ()).split(y)
            assert sorted(torch.cat([*parts.values()]).tolist()) == list(range(size))


def test_a_part_without_one_of_two_classes_is_refused(frame):
    frame["snow"] = (np.arange(ROWS) < 2).astype(int)
    frame.to_csv("table.csv", index=False)
    with pytest.raises(ConfigError, match=r"part: no sample has snow=1: add samples, leave the column out of the targ"):
        Csv("table.csv", ["rain", "snow"]).setup()


# given from Python


def arrays(y: np.ndarray):
    x = np.random.default_rng(0).normal(size=(len(y), 4)).astype(np.float32)
    return (x, y), (x, y), (x, y)


def test_arrays_of_whole_numbers_in_columns_are_labels(quick_run):
    y = np.random.default_rng(0).integers(0, 2, (60, 3))
    for labels in (y, y.astype(bool)):
        result = quick_run("model=net", folder=str(labels.dtype), data=arrays(labels))
        assert type(result.task).__name__ == "Multilabel"
        assert result.task.network.fc2.out_features == 3


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.eye(3, dtype=int)[np.arange(60) % 3], r"each sample has one of the labels .*y.argmax\(1\)"),
        (np.arange(120).reshape(60, 2) % 3, "labels, such as 2, are neither 0 nor 1.*y.float"),
        (np.stack([np.arange(60) % 2, np.ones(60, dtype=int)], 1), "the target is 1 in all 60 samples in column 1"),
    ],
    ids=["one-hot", "three", "constant"],
)
def test_arrays_that_are_no_labels_are_refused(quick_run, y, message):
    with pytest.raises(ConfigError, match=message):
        quick_run("model=net", data=arrays(y))


def test_a_data_module_may_state_its_columns(tmp_path):
    class Mine(LightningDataModule):
        task, target_names = "multilabel", ("cat", "dog")

        def train_dataloader(self):
            x, y = torch.randn(40, 4), torch.arange(80).reshape(40, 2) % 3 % 2
            return DataLoader(TensorDataset(x, y), 10)

        val_dataloader = test_dataloader = train_dataloader

    config = compose(["model=net", "trainer=debug", "logger=none"])
    run(config, folder=tmp_path / "run", data=Mine())
    found = run(
        compose(["action=predict", "trust=[test_targets]", f"ckpt={tmp_path}/run/checkpoints/best.ckpt"]), data=Mine()
    ).predictions
    assert list(found)[-2:] == ["p_cat=1", "p_dog=1"]


def test_stats_tell_of_each_column(frame, tmp_path):
    for typed in (NUMBERS, LABELS):
        run(compose([*TABLE, *typed, "action=stats"]), folder=tmp_path / "run")
        text = (tmp_path / "run" / "stats" / "stats.txt").read_text()
        data = Csv("table.csv", [*typed[0].removeprefix("data.target=[").removesuffix("]").split(",")])
        data.setup()
        for place, name in enumerate(data.targets):
            y = data.splits["train"][1][:, place].double()
            if typed is NUMBERS:
                expected = [len(y), *(f"{float(value):.4g}" for value in (y.mean(), y.std(correction=0)))]
                assert "".join(f"{value} " for value in expected).split() == row(text, f"{name}, train")[:3]
            else:
                shown = row(text, f"{name}={data.class_names[place][1]}")
                assert [shown[0], shown[-1]] == [str(int(y.sum())), f"{y.mean():.1%}"]


def row(text: str, first: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(first + " "))
    return line.removeprefix(first).split()
