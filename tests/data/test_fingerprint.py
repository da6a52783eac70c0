"""A run goes on with the training data that it was begun on: what changed is named, and nothing else is refused."""

import json
import os
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.folders import result_of, rows_of
from helpers.samples import idx_files, image_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits, load_wine

from normlab import DataModule, compose, run
from normlab.data.common import fingerprint
from normlab.errors import ConfigError
from normlab.folder.same_data import changes
from normlab.runner.data import build_data

CSV = ["data=csv", "data.path=table.csv", "data.target=kind"]
IMAGES = ["data=image_folder", "data.path=photos"]


class Own(DataModule):
    """A person's own data set, whose samples a test may change."""

    task, input_shape, out_features = "classify", (3,), 2
    x, y = torch.arange(120.0).reshape(40, 3), torch.arange(40) % 2

    def load(self):
        return {"train": (self.x, self.y)}


def told(*overrides: str):
    """The fingerprint of the training part, as a run folder keeps it."""
    return json.loads(json.dumps(set_up(*overrides).fingerprint))


def set_up(*overrides: str):
    return build_data(config(*overrides), Path("outputs/none"))


@cache
def config(*overrides: str):
    return compose(overrides)


def table(rows: int = 60) -> pd.DataFrame:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"size": random.normal(size=rows).round(3), "age": random.integers(1, 9, rows)})
    frame["town"] = random.choice(["Rome", "Oslo", "Lima"], rows)
    frame["kind"] = ["cat", "dog"] * (rows // 2)
    return frame


def write(frame: pd.DataFrame) -> None:
    frame.to_csv("table.csv", index=False)
    frame.to_parquet("table.parquet")


def first_row(part: str = "train", source: list[str] = CSV) -> int:
    """The place in its file of a sample of a part."""
    return int(set_up(*source).sample_names[part][0]) - 1


def first_image(part: str = "train") -> str:
    return set_up(*IMAGES).sample_names[part][0]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


# What is changed in a table, and what is said of it.


def other_value(frame):
    frame.loc[first_row(), "size"] += 0.001
    return frame, ["column size has other values"]


def other_category(frame):
    frame.loc[first_row(), "town"] = "Cairo"
    return frame, ["column town has other values"]


def gap(frame):
    frame.loc[first_row(), "age"] = None
    return frame, ["column age has other values"]


def more_rows(frame):
    return pd.concat([frame, frame[:2]]), ["number of samples 60 → 62"]


def other_target(frame):
    frame.loc[first_row(), "kind"] = "dog" if frame.loc[first_row(), "kind"] == "cat" else "cat"
    return frame, ["the target has other values"]


def new_class(frame):
    frame.loc[:9, "kind"] = "cow"
    return frame, ["class cow is new", "the target has other values"]


def other_class(frame):
    frame["kind"] = frame["kind"].replace("dog", "wolf")
    return frame, ["class dog is gone", "class wolf is new"]


def new_column(frame):
    return frame.assign(new=1.5 * frame["age"]), ["column new is new"]


def renamed_column(frame):
    return frame.rename(columns={"age": "years"}), ["column age is gone", "column years is new"]


TABLE_CHANGES = [other_value, other_category, gap, more_rows, other_target, new_class, other_class]
TABLE_CHANGES += [new_column, renamed_column]


@pytest.mark.parametrize("change", TABLE_CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_what_changed_in_a_table_is_named(kind, change):
    write(table())
    source = [f"data={kind}", f"data.path=table.{kind}", "data.target=kind"]
    before = told(*source)
    frame, lines = change(table())
    write(frame)
    assert changes(before, told(*source)) == lines


def test_what_changed_in_several_targets_is_named():
    frame = table().assign(rent=1.5, price=range(60))
    frame["rent"] *= frame["size"]
    source = ["data=csv", "data.path=table.csv", "data.target=[price,rent]"]
    write(frame)
    before, changed = told(*source), first_row(source=source)
    unseen = first_row("val", source)
    frame.loc[unseen, "price"] = 99
    write(frame)
    assert changes(before, told(*source)) == []
    frame.loc[changed, "price"] = 99
    write(frame)
    assert changes(before, told(*source)) == ["target price has other values"]


def test_a_table_that_says_the_same_is_the_same():
    write(table())
    before = told(*CSV)
    table().to_csv("table.csv", index=False, sep=";", lineterminator="\r\n")
    os.utime("table.csv", (1, 1))
    assert changes(before, told(*CSV)) == []
    frame = table().assign(notes=[f"note {number} of a person" for number in range(60)])  # which is not learned from
    frame.loc[first_row("test"), "size"] = 99.0
    write(frame)
    assert changes(before, told(*CSV)) == []


@settings(max_examples=8, derandomize=True, deadline=None, database=None)
@given(edits=st.lists(st.tuples(st.integers(0, 59), st.integers(0, 59)), min_size=1, max_size=3), number=st.booleans())
def test_a_table_is_another_where_its_training_rows_are(edits, number):
    """Rows are exchanged, or their numbers: what the split takes from the file tells whether that is a change."""

    def rows(frame):
        return frame.iloc[[int(name) - 1 for name in set_up(*CSV).sample_names["train"]]].to_numpy().tolist()

    frame = table()
    write(frame)
    before, whole = told(*CSV), rows(frame)
    for one, other in edits:
        columns = ["size", "age"] if number else list(frame)
        frame.loc[[one, other], columns] = frame.loc[[other, one], columns].to_numpy()
    write(frame)
    assert bool(changes(before, told(*CSV))) == (rows(frame) != whole)


@pytest.mark.parametrize("number", [0, 5])
def test_what_changed_in_wine_is_named(number, monkeypatch):
    bunch = load_wine()
    monkeypatch.setattr("normlab.data.wine.load_wine", lambda: bunch)
    before = told("data=wine")
    assert changes(before, told("data=wine")) == []
    bunch.data = bunch.data.copy()
    bunch.data[:, number] += 1
    assert changes(before, told("data=wine")) == [f"column {bunch.feature_names[number]} has other values"]
    bunch.data, bunch.target = (np.concatenate([array, array[:2]]) for array in (bunch.data, bunch.target))
    assert changes(before, told("data=wine")) == ["number of samples 178 → 180"]


@pytest.mark.parametrize("size", ["32", "8"])
def test_digits_are_told_by_the_pixels_that_are_stored(size, monkeypatch):
    bunch = load_digits()
    monkeypatch.setattr("normlab.data.digits.load_digits", lambda: bunch)
    before = told("data=digits", f"data.size={size}")
    assert changes(before, told("data=digits", "data.size=16")) == []  # it is the configuration that differs
    bunch.images = bunch.images + 1e-9
    assert changes(before, told("data=digits", f"data.size={size}")) == ["the samples have other values"]


@pytest.mark.parametrize("size", ["null", "14"])
def test_what_changed_in_files_of_a_standard_set_is_named(size, tmp_path):
    source = ["data=mnist", f"data.root={idx_files(tmp_path, 'MNIST')}", f"data.size={size}"]
    before = told(*source)
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    shutil.copytree(tmp_path / "MNIST", tmp_path / "elsewhere" / "MNIST")
    assert changes(before, told(*source, f"data.root={tmp_path}/elsewhere")) == []
    stored = bytearray(file.read_bytes())
    stored[16::784] = bytes(200)  # the first pixel of each image
    file.write_bytes(stored)
    assert changes(before, told(*source)) == ["the samples have other values"]
    labels = file.with_name("train-labels-idx1-ubyte")
    labels.write_bytes(labels.read_bytes()[:8] + bytes(reversed(labels.read_bytes()[8:])))
    assert "the target has other values" in changes(before, told(*source))


def new_image(folder):
    shutil.copy(folder / "a" / "003.png", folder / "a" / "new.png")
    return ["number of samples 40 → 41", "file a/new.png is new"]


def gone_image(folder):
    gone = first_image()
    (folder / gone).unlink()
    return ["number of samples 40 → 39", f"file {gone} is gone"]


def other_bytes(folder):
    changed = first_image()
    (folder / changed).write_bytes((folder / changed).read_bytes() + b" ")  # which decodes to the same pixels
    return [f"file {changed} has other bytes"]


def renamed_image(folder):
    changed = first_image()
    (folder / changed).rename(folder / f"{changed}.png")
    return [f"file {changed} is gone", f"file {changed}.png is new"]


def other_folder(folder):
    moved = first_image()
    other = {"a": "b", "b": "a"}[moved[0]] + "/999.png"
    (folder / moved).rename(folder / other)
    return [f"file {moved} is gone", f"file {other} is new"]


def new_folder(folder):
    image_folder(folder, classes="c")
    return ["number of samples 40 → 60", "class c is new", *(f"file c/{number:03}.png is new" for number in range(20))]


@pytest.mark.parametrize("in_memory", ["true", "false"])
@pytest.mark.parametrize("change", [new_image, gone_image, other_bytes, renamed_image, other_folder, new_folder])
def test_what_changed_in_a_folder_of_images_is_named(change, in_memory):
    folder = image_folder(Path("photos"))
    source = [*IMAGES, f"data.in_memory={in_memory}"]
    before = told(*source)
    lines = change(folder)
    assert {*lines} <= {*changes(before, told(*source))}
    assert len(changes(before, told(*source))) <= len(lines) + 1  # and the target, of which a folder decides


@pytest.mark.parametrize("most", [5, 100])
def test_a_folder_of_images_that_holds_the_same_is_the_same(most, monkeypatch):
    monkeypatch.setattr(fingerprint, "MOST_FILES", most)
    folder = image_folder(Path("photos"))
    before = told(*IMAGES)
    shutil.copytree(folder, "copy")  # with the time of its making
    for file in Path("copy").rglob("*.png"):
        os.utime(file, (1, 1))
    Path("copy", "a", "notes.txt").write_text("no image")
    for in_memory in ("true", "false"):
        after = told("data=image_folder", "data.path=copy", f"data.in_memory={in_memory}", "data.size=4")
        assert changes(before, after) == []
    shutil.copy("copy/a/003.png", Path("copy", first_image("test")))  # a sample that is not trained on
    assert changes(before, told("data=image_folder", "data.path=copy")) == []


def test_many_files_are_told_by_their_folders(monkeypatch):
    monkeypatch.setattr(fingerprint, "MOST_FILES", 5)
    folder = image_folder(Path("photos"))
    before = told(*IMAGES)
    changed = other_bytes(folder)[0].split()[1]
    said = f"folder {changed[0]} has other files, or other bytes in them"
    assert changes(before, told(*IMAGES)) == [said]


def test_files_of_parts_of_their_own_are_told_alike():
    for part in ("train", "val", "test"):
        image_folder(Path("photos", part))
    before = told(*IMAGES)
    shutil.copy("photos/val/a/003.png", "photos/val/a/new.png")
    assert changes(before, told(*IMAGES)) == []
    shutil.copy("photos/train/a/003.png", "photos/train/a/004.png")
    assert changes(before, told(*IMAGES)) == ["file train/a/004.png has other bytes"]


@settings(max_examples=25, derandomize=True, deadline=None, database=None)
@given(data=st.data())
def test_an_own_data_set_is_another_where_its_training_part_is(data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Own, "x", Own.x.clone())
        patch.setattr(Own, "y", Own.y.clone())
        own = "trust=[test_fingerprint]", "model=net", f"data._target_={Own.__module__}.Own"
        before, (x, y) = told(*own), set_up(*own).splits["train"]
        sample = data.draw(st.integers(0, 39))
        if data.draw(st.booleans()):
            Own.x[sample, data.draw(st.integers(0, 2))] += data.draw(st.sampled_from([0, 1e-4, -5]))
        else:
            Own.y[sample] = data.draw(st.integers(0, 1))
        after, now = told(*own), set_up(*own).splits["train"]
        same = torch.equal(x, now[0]) and torch.equal(y, now[1])
        assert (changes(before, after) == []) == same


@pytest.mark.parametrize("key", ["split_seed=1", "val_fraction=0.2", "subset=0.5", "fold=1"])
def test_another_split_is_noticed(key):
    source = ["data=wine", "data.folds=3"] if "fold" in key else ["data=wine"]
    assert changes(told(*source), told(*source, f"data.{key}"))


RUN = ["model=net", *CSV, "logger=none", "trainer.max_epochs=1", "data.batch_size=8"]


def test_a_run_is_not_gone_on_with_on_other_data(monkeypatch):
    write(table())
    run(compose([*RUN, "name=a"]))
    folder = Path("outputs/a")
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix in (".json", ".csv", ".yaml")}
    write(other_value(table())[0])
    longer = ["extend=true", "trainer.max_epochs=2", "name=a"]
    said = r"^the training data is not what outputs/a was begun on: column size has other values\. .*data\.changed=ok"
    with pytest.raises(ConfigError, match=said) as refusal:
        run(compose(longer))
    assert "\n" not in str(refusal.value)
    assert before == {name: (folder / name).read_bytes() for name in before}
    assert run(compose(["action=test", "name=a"])).metrics  # which looks at the network as it is

    run(compose([*longer, "data.changed=ok"]))
    assert result_of(folder)["status"] == "finished"
    assert len(rows_of(folder)) == 2
    assert "going on with training data that changed: column size" in (folder / "train.log").read_text()
    run(compose([*longer[:-2], "trainer.max_epochs=3", "name=a"]))  # it is the run's own data from now on
    write(more_rows(table())[0])
    with pytest.raises(ConfigError, match="number of samples 60 → 62"):  # the word held for one start
        run(compose([*longer[:-2], "trainer.max_epochs=4", "name=a"]))


def test_a_run_that_has_saved_nothing_or_has_no_fingerprint_takes_what_is_there(monkeypatch):
    write(table())

    def stop(*_):
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr("normlab.runner.run.act", stop)
        with pytest.raises(InterruptedError):
            run(compose([*RUN, "name=a"]))
    write(more_rows(table())[0])
    run(compose([*RUN, "name=a"]))
    kept = Path("outputs/a/fingerprint.json")
    assert json.loads(kept.read_text())["cut_from"] == 62
    kept.unlink()
    write(table())
    run(compose(["extend=true", "trainer.max_epochs=2", "name=a"]))
    assert json.loads(kept.read_text())["cut_from"] == 60


def test_a_damaged_fingerprint_is_one_line():
    write(table())
    run(compose([*RUN, "name=a"]))
    said = r"^outputs/a/fingerprint\.json is empty, cut off or of another program.*"
    for text in ("", "[]", '{"columns": 3}', '{"classes": [1]}', '{"classes": [], "files": "a"}'):
        Path("outputs/a/fingerprint.json").write_text(text)
        with pytest.raises(ConfigError, match=said) as refusal:
            run(compose(["extend=true", "trainer.max_epochs=2", "name=a"]))
        assert "\n" not in str(refusal.value)


def test_data_changed_takes_one_word_and_makes_no_other_run():
    with pytest.raises(ConfigError, match=r"^data\.changed=yes: expected ok or null"):
        compose(["data=wine", "data.changed=yes"])
    from normlab.folder.identity import config_hash

    assert config_hash(compose(["data=wine"])) == config_hash(compose(["data=wine", "data.changed=ok"]))
