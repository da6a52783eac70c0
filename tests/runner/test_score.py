"""action=test input=: a finished run is scored on labelled files that it has never seen, by its own preprocessing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.samples import image_folder
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, mean_absolute_error, r2_score

from normlab import compose, run
from normlab.errors import ConfigError

SMALL = ["model=net", "logger=none", "trainer.max_epochs=1", "name=a"]


def people(rows: int, seed: int = 0) -> pd.DataFrame:
    """Rows with gaps, a category, a class, two labels and two numbers to learn."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame({"age": random.integers(18, 90, rows).astype(float), "job": random.choice([*"xyz"], rows)})
    frame["kind"] = np.where(frame["age"] + 20 * (frame["job"] == "x") > 55, "old", "young")
    frame["owns"], frame["rents"] = random.choice(["no", "yes"], (2, rows))
    frame["price"] = (100 + 3 * frame["age"] + random.normal(size=rows)).round(4)
    frame["rent"] = (frame["price"] / 7).round(4)
    frame.loc[random.choice(rows, rows // 8, replace=False), "age"] = np.nan
    return frame


def fit(target: str, *typed: str) -> None:
    """A run outputs/a whose training file is gone."""
    people(90).to_csv("train.csv", index=False)
    drop = [name for name in ("kind", "owns", "rents", "price", "rent") if name not in target.strip("[]").split(",")]
    keys = [f"data.target={target}", f"data.drop=[{','.join(drop)}]"]
    run(compose([*SMALL, "data=csv", "data.path=train.csv", *keys, *typed]))
    Path("train.csv").unlink()


def answered(file: str | None = None) -> pd.DataFrame:
    table = run(compose(["action=predict", "name=a", *([] if file is None else [f"input={file}"])])).predictions
    assert table is not None
    return table


def scored(file: str, *typed: str) -> dict:
    run(compose(["action=test", "name=a", f"input={file}", *typed]))
    return json.loads(Path("outputs", "a", "test", Path(file).name, "result.json").read_text())


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", [pytest.param("csv", marks=pytest.mark.slow), "parquet"])
def test_a_new_table_is_scored_as_scikit_learn_scores_its_predictions(kind):
    fit("kind", "task.metrics=[acc,f1,confusion_matrix]", "task.class_weights=balanced")
    before = {path: path.read_bytes() for path in Path("outputs/a").rglob("*") if path.is_file()}
    new = people(50, seed=1)
    new.to_csv("new.csv", index=False) if kind == "csv" else new.to_parquet("new.parquet")
    result, table = scored(f"new.{kind}"), answered(f"new.{kind}")
    truth, predicted = new["kind"], table["prediction"]
    assert result["metrics"]["test/acc"] == pytest.approx(accuracy_score(truth, predicted))
    assert result["metrics"]["test/f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert result["majority"]["test"] == pytest.approx(truth.value_counts(normalize=True).max())
    written = pd.read_csv(f"outputs/a/test/new.{kind}/confusion_matrix_test.csv", index_col=0)
    assert written.to_numpy().tolist() == confusion_matrix(truth, predicted, labels=["old", "young"]).tolist()
    assert (result["input"], result["samples"], result["status"]) == (f"new.{kind}", {"test": 50}, "finished")
    assert all(path.read_bytes() == content for path, content in before.items())


def test_the_loss_weighs_classes_as_the_training_part_did():
    fit("kind", "task.class_weights=balanced")
    people(90).to_csv("train.csv", index=False)
    of_part = run(compose(["action=test", "name=a"])).metrics
    numbers = [int(number) - 1 for number in answered()["sample"]]
    people(90).iloc[numbers].to_csv("same.csv", index=False)
    assert scored("same.csv")["metrics"] == pytest.approx(of_part)


def test_numbers_are_scored_in_their_own_units():
    fit("[price,rent]")
    new = people(50, seed=1)
    new.to_csv("new.csv", index=False)
    metrics, table = scored("new.csv")["metrics"], answered("new.csv")
    truth, predicted = new[["price", "rent"]], table[["prediction_price", "prediction_rent"]]
    assert metrics["test/r2"] == pytest.approx(r2_score(truth, predicted), rel=1e-4)
    assert metrics["test/mae"] == pytest.approx(mean_absolute_error(truth, predicted), rel=1e-4)
    new[:1].to_csv("one.csv", index=False)
    with pytest.raises(ConfigError, match="input=one.csv holds a single sample, and r2 needs two"):
        scored("one.csv")


def test_several_labels_are_scored_column_by_column():
    fit("[owns,rents]")
    new = people(50, seed=1)
    new.to_csv("new.csv", index=False)
    metrics, table = scored("new.csv")["metrics"], answered("new.csv")
    right = [accuracy_score(new[name], table[f"prediction_{name}"]) for name in ("owns", "rents")]
    assert metrics["test/acc"] == pytest.approx(np.mean(right))


def test_a_folder_of_classes_is_scored():
    photos = image_folder(Path("photos"))
    keys = ["data=image_folder", f"data.path={photos}", "data.flip=false"]
    run(compose([*SMALL, *keys]))
    metrics = run(compose(["action=test", "name=a"])).metrics
    test = answered()
    shutil.rmtree("photos")
    image_folder(Path("all"))
    for file in test["sample"]:
        Path("new", file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path("all", file), Path("new", file))
    assert scored("new")["metrics"] == pytest.approx(metrics)
    shutil.copytree("new/a", "new/owl")
    for path, message in (
        ("new", "input=new: the run knows no class owl; expected folders of the classes that the run knows: a, b"),
        ("new/a", "input=new/a holds no images in folders of the classes that the run knows: a, b"),
        ("new/a/" + Path(next(Path("new/a").iterdir())).name, "a single image has no class"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(compose(["action=test", "name=a", f"input={path}"]))


def test_a_score_says_of_what_it_is_and_takes_no_others_place():
    fit("kind")
    people(90).to_csv("train.csv", index=False)
    people(30, seed=1).to_csv("new.csv", index=False)
    run(compose(["action=test", "name=a"]))
    scored("new.csv")
    scored("new.csv")  # the same file again is the same score
    assert json.loads(Path("outputs/a/test/result.json").read_text())["input"] is None
    Path("b").mkdir()
    people(30, seed=2).to_csv("b/new.csv", index=False)
    for typed, message in (
        (["input=b/new.csv"], "outputs/a/test/new.csv holds the score of new.csv; out=<another folder> keeps both"),
        (["input=b/new.csv", "out=outputs/a/test"], "outputs/a/test holds the score of the test part; out="),
        (["input=b/new.csv", "out=outputs/a"], "outputs/a holds the result of action=fit; choose another out="),
        (["input=b/new.csv", "out=b"], "b exists and holds no result of action=test; choose another out="),
    ):
        with pytest.raises(ConfigError, match=message):
            compose(["action=test", "name=a", *typed])
    run(compose(["action=test", "name=a", "input=b/new.csv", "out=scores"]))
    assert json.loads(Path("scores/result.json").read_text())["input"] == "b/new.csv"


def test_what_cannot_be_scored_is_refused_in_a_line():
    fit("kind")
    new = people(30, seed=1)
    wrong = new.copy()
    wrong.loc[[3, 7], "kind"] = "ancient"
    for frame, message in (
        (
            wrong,
            (
                "input=new.csv: class 'ancient' of kind in row 4 and 1 more (8) is not in the training file, whose "
                "classes are old, young"
            ),
        ),
        (new.drop(columns="kind"), "input=new.csv: the target column kind is missing"),
        (new.drop(columns=["age", "job"]), "input=new.csv: these columns are missing: age, job"),
        (new.assign(kind=None), "input=new.csv: the target column kind is empty in 30 of 30 rows, first in row 1"),
    ):
        frame.to_csv("new.csv", index=False)
        with pytest.raises(ConfigError) as refusal:
            run(compose(["action=test", "name=a", "input=new.csv"]))
        assert str(refusal.value).startswith(message)
        assert "\n" not in str(refusal.value)


def test_classes_are_known_however_their_numbers_are_written():
    """1.0 is the class 1 of a run whose file has whole numbers; 01 is none."""
    frame = people(90).assign(kind=lambda frame: (frame["kind"] == "old") + 1)
    frame.to_csv("train.csv", index=False)
    drop = "data.drop=[owns,rents,price,rent]"
    run(compose([*SMALL, "data=csv", "data.path=train.csv", "data.target=kind", drop]))
    frame.to_csv("plain.csv", index=False)
    frame.assign(kind=frame["kind"].astype(float)).to_csv("points.csv", index=False)
    assert scored("points.csv")["metrics"] == scored("plain.csv")["metrics"]
    frame.assign(kind="0" + frame["kind"].astype(str)).to_csv("codes.csv", index=False)
    with pytest.raises(ConfigError, match=r"class '0\d' of kind in row 1 .* whose classes are 1, 2"):
        scored("codes.csv")
