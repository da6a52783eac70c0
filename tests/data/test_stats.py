"""action=stats: what it finds in data that was made to have it, and that it is right."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.cases import ORIGINAL, options, rest_slow
from helpers.processes import train
from helpers.samples import Streamed
from lightning import LightningDataModule
from sklearn.datasets import load_iris
from torch.utils.data import DataLoader, TensorDataset

from normlab import compose, run
from normlab.data.common.base import DataModule
from normlab.data.common.targets import TargetColumn
from normlab.data.stats.measure import Moments, Part, constant_columns, equal_columns, matches
from normlab.data.stats.summary import report
from normlab.errors import ConfigError


def stats_of(tmp_path, *typed, data=None):
    result = run(compose(["action=stats", *typed]), folder=tmp_path, data=data)
    folder = tmp_path / "stats"
    assert (folder / "stats.png").read_bytes().startswith(b"\x89PNG")
    assert not list(folder.rglob("*.part"))
    written = json.loads((folder / "result.json").read_text())
    assert (written["status"], written["metrics"]) == ("finished", result.metrics)
    return (folder / "stats.txt").read_text(), result.metrics


def row(text: str, first: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(first + " "))
    return line.removeprefix(first).split()


@pytest.mark.parametrize("option", rest_slow(options("data"), lambda case: case[0] == "digits"))
def test_every_data_set_has_stats(option, tmp_path, example):
    if option in ORIGINAL:
        pytest.skip("takes its original files alone; data/test_standard.py makes others")
    typed = [f"data={option}", *example(option)]
    text, found = stats_of(tmp_path / "run", *typed)
    data = compose(typed).data
    assert text.startswith(f"{data._target_}: ")
    assert all(found[part] > 0 for part in ("train", "val", "test"))


def test_classes_columns_and_the_leak_of_iris(tmp_path):
    """The flowers 101 and 142 of iris are equal: in which parts they lie is told by the split."""
    text, found = stats_of(tmp_path, "data=iris")
    bunch = load_iris()
    assert [sum(map(int, row(text, name)[:3])) for name in bunch.target_names] == [50, 50, 50]
    assert row(text, "all") == ["97", "23", "30"]
    assert found == {"train": 97, "val": 23, "test": 30, "missing": 0, "duplicates": 0, "leaks": 1}
    assert "1 of test stand in train too: test 16 = train 6" in text
    assert "1 of test are trained on" in text
    everything, _ = stats_of(tmp_path / "most", "data=iris", "data.test_fraction=0.03", "data.val_fraction=0.03")
    told = [float(value) for value in row(everything, "petal length (cm)")[2:]]
    np.testing.assert_allclose(told[:2], [bunch.data[:, 2].mean(), bunch.data[:, 2].std()], rtol=0.05)


def test_images_are_measured_as_they_are_read(tmp_path):
    text, _ = stats_of(tmp_path, "data=digits", "data.size=8", "data.channels=1")
    from normlab.data.digits import Digits

    data = Digits(size=8, channels=1)
    data.preprocess = lambda train: lambda x: x
    data.setup()
    x = data.splits["train"][0].double()
    mean, std = map(float, text.split("channel")[1].splitlines()[1].split()[1:])
    assert (mean, std) == (
        pytest.approx(x.mean().item(), rel=1e-3),
        pytest.approx(x.std(correction=0).item(), rel=1e-3),
    )
    assert "values of the training part from 0 to 1" in text


@pytest.mark.parametrize("shift", [0, 1e6])
def test_moments_gathered_by_batches_are_those_of_all(shift):
    random = torch.Generator().manual_seed(0)
    x = torch.randn(100, 3, 4, 5, dtype=torch.float64, generator=random) + shift
    moments = Moments()
    for batch in (x[:7], x[7:90], x[90:90], x[90:]):
        moments.add(batch)
    std, mean = torch.std_mean(x, dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(moments.mean, mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(moments.std, std, rtol=1e-9, atol=0)
    assert (moments.low, moments.high, moments.missing) == (x.min().item(), x.max().item(), 0)


def test_moments_leave_out_what_is_missing():
    x = torch.tensor([[1.0, float("nan")], [3.0, float("nan")], [float("inf"), 5.0]])
    moments = Moments()
    for sample in x:
        moments.add(sample[None])
    assert moments.mean.tolist() == [2, 5]
    assert moments.std.tolist() == [1, 0]
    assert (moments.missing, moments.low, moments.high) == (3, 1, 5)


class Spoilt(DataModule):
    """A table with a constant column, one that says the same as another, gaps, repetitions, and a leak."""

    task, input_shape, out_features = "classify", (4,), 3
    class_names = ("no", "yes", "never")
    feature_names = ("a", "same as a", "constant", "gaps")

    def load(self):
        random = torch.Generator().manual_seed(0)
        parts = {}
        for name, size in (("train", 60), ("val", 20), ("test", 20)):
            x = torch.randn(size, 4, generator=random)
            x[:, 2] = 7
            x[3, 3] = float("nan")
            parts[name] = x, (torch.arange(size) % 10 == 0).long()
        for name, places in (("train", (8, 9)), ("test", (4, 10))):
            parts[name][0][list(places)] = parts["train"][0][1].clone()
        for x, _ in parts.values():
            x[:, 1] = x[:, 0]
        return parts


class Pictures(DataModule):
    task, input_shape, out_features = "classify", (3, 4, 4), 2

    def load(self):
        x = torch.randint(0, 255, (1200, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        y = torch.arange(1200) % 2
        train, test = x[:900], x[900:].clone()
        test[[7, 9]] = train[[600, 3]]
        self.sample_names = {"train": [f"{n}.jpg" for n in range(900)], "test": [f"{n}.png" for n in range(300)]}
        return {"train": (self.held(train), y[:900]), "test": (self.held(test), y[900:])}

    def held(self, x):
        return x


class StreamedPictures(Pictures):
    held = Streamed


class Rows(DataModule):
    """A table whose columns become numbers in `preprocess`."""

    task, out_features = "classify", 2

    class Held:
        def __init__(self, frame):
            self.frame = frame

        def __len__(self):
            return len(self.frame)

        def __getitem__(self, index):
            return Rows.Held(self.frame.iloc[index.numpy()])

    def load(self):
        frame = pd.DataFrame({"number": np.arange(40.0) % 7, "colour": ["red", "blue", None, "red"] * 10})
        return {"train": (self.Held(frame), torch.arange(40) % 2)}

    def preprocess(self, train):
        raise AssertionError("not for stats")


def test_what_is_wrong_with_a_table_is_told(tmp_path):
    text, found = stats_of(tmp_path, "data._target_=test_stats.Spoilt")
    assert found == {"train": 60, "val": 20, "test": 20, "missing": 3, "duplicates": 3, "leaks": 2}
    for told in (
        "2 of train repeat one before: 9 = 2, 10 = 2\n",
        "1 of test repeat one before, 1 with another target: 11 = 5\n",
        "2 of test stand in train too, 1 with another target: test 5 = train 2, test 11 = train 2",
        "train has no sample of never",
        "no has 9 × the samples of the rarest class, and always guessing it has an accuracy of 0.900",
        "task.class_weights=balanced",
        "missing values: 1 in train, 1 in val, 1 in test",
        "constant, and so of no use: constant",
        "columns that say the same: same as a = a",
        "2 of test are trained on",
    ):
        assert told in text, told
    assert "of val stand" not in text


@pytest.mark.parametrize("kind", ["Pictures", "StreamedPictures"])
def test_pictures_in_memory_and_streamed_have_the_same_stats(tmp_path, kind):
    text, found = stats_of(tmp_path, f"data._target_=test_stats.{kind}", "data.val_fraction=0.1")
    assert found["leaks"] == 2
    data = Pictures(val_fraction=0.1)
    data.setup()
    x = data.splits["train"][0].double()
    for channel, (mean, std) in enumerate(zip(x.mean((0, 2, 3)), x.std((0, 2, 3), correction=0), strict=True)):
        assert text.split("channel")[1].splitlines()[1 + channel].split() == [str(channel), f"{mean:.4g}", f"{std:.4g}"]
    assert "test 7.png = train " in text
    assert "values of the training part from 0 to 254" in text


def test_rows_are_told_by_their_place_in_the_file_and_are_not_preprocessed(tmp_path):
    text, found = stats_of(tmp_path, "data._target_=test_stats.Rows")
    assert row(text, "colour")[1] == "2"
    assert text.splitlines()[0] == "test_stats.Rows: 2 classes"
    assert found["missing"] == 10
    frame = Rows().load()["train"][0].frame
    assert found["leaks"] > 0
    pairs = [pair for line in text.splitlines() if "stand in train" in line for pair in line.split(": ")[1].split(", ")]
    for pair in pairs:
        later, earlier = (int(part.split("row ")[1].split()[0]) - 1 for part in pair.split(" = "))
        assert frame.iloc[later].equals(frame.iloc[earlier])


@pytest.mark.slow
def test_a_data_module_from_python_stays_as_it_was(tmp_path):
    from normlab.data.wine import Wine

    data, other = Wine(), Wine()
    first, _ = stats_of(tmp_path / "a", data=data)
    data.setup()
    other.setup()
    assert torch.equal(data.splits["train"][0], other.splits["train"][0])
    again, _ = stats_of(tmp_path / "b", data=data)
    assert first == again


def test_own_data_as_its_loaders_give_it(tmp_path):
    class Mine(LightningDataModule):
        def train_dataloader(self):
            return DataLoader(TensorDataset(torch.arange(30.0).view(10, 3), torch.arange(10) % 2), 4)

        val_dataloader = train_dataloader

    text, found = stats_of(tmp_path, data=Mine())
    assert found == {"train": 10, "val": 10, "missing": 0, "duplicates": 0, "leaks": 10}
    assert "own data, as its loaders give it" in text.splitlines()[0]


SHAPES = {(5,): "one", (3, 6, 6): "shares", (2, 7): "shares", (1, 4, 4, 4): "one"}


@pytest.mark.parametrize(
    ("shape", "targets"),
    rest_slow(itertools.product(SHAPES, ("one", "shares")), lambda case: SHAPES[case[0]] == case[1]),
    ids=str,
)
def test_own_samples_of_any_shape(tmp_path, shape, targets):
    x = torch.rand(24, *shape, generator=torch.Generator().manual_seed(0))
    y = torch.arange(24.0) if targets == "one" else torch.nn.functional.one_hot(torch.arange(24) % 3, 3).float()

    class Mine(LightningDataModule):
        task = "regress" if targets == "one" else "classify"

        def train_dataloader(self):
            return DataLoader(TensorDataset(x, y), 5)

        val_dataloader = train_dataloader

    text, found = stats_of(tmp_path, data=Mine())
    assert found["leaks"] == 24
    assert row(text, "all" if targets == "shares" else "train")[0] == "24"


def test_a_target_to_regress_has_its_range(tmp_path):
    text, _ = stats_of(tmp_path, "data=diabetes")
    assert row(text, "target") == ["samples", "mean", "std", "min", "median", "max"]
    assert int(row(text, "train")[0]) == 286


def part_of(hashes, targets):
    return Part(torch.tensor(targets), np.array(hashes, dtype=np.uint64), [str(place) for place in range(len(hashes))])


def test_matches_are_those_of_a_search_of_all_pairs():
    random = np.random.default_rng(0)
    a, b = (part_of(random.integers(0, 30, 40), random.integers(0, 2, 40)) for _ in range(2))
    found = {(int(match.later), int(match.earlier), match.same_target) for match in matches(a, b)}
    slow = set()
    for later in range(40):
        earlier = next((place for place in range(40) if a.hashes[place] == b.hashes[later]), None)
        if earlier is not None:
            slow.add((later, earlier, bool(a.targets[earlier] == b.targets[later])))
    assert found == slow


def test_columns_of_a_frame():
    gaps = [1.0, None, 1.0]
    frame = pd.DataFrame({"a": [1, 2, 3], "b": [1.0, 1.0, 1.0], "c": [1, 2, 3], "d": gaps, "e": [None] * 3, "f": gaps})
    assert constant_columns(frame) == ["b", "e"]
    assert equal_columns(frame) == [("c", "a"), ("f", "d")]


def test_a_thousand_classes_are_told_by_their_ends():
    counts = torch.arange(1, 1001)
    targets = torch.repeat_interleave(torch.arange(1000), counts)
    part = Part(targets, np.arange(len(targets), dtype=np.uint64), [], Moments())
    part.moments.add(torch.zeros(2, 1, 1, 1))
    text = report("", {"train": part}, [TargetColumn("", [f"c{number}" for number in range(1000)])], {})
    assert len(text.splitlines()) < 70
    assert row(text, "c999")[0] == "1000"
    assert "… 960 more" in text


@pytest.mark.slow
def test_the_run_of_a_name_lends_its_data_and_a_new_name_still_takes_a_fit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["model=net", "logger=none", "trainer=debug", "data=wine", "data.subset=30"]
    run(compose([*small, "name=a"]))
    before = (tmp_path / "outputs" / "a" / "result.json").read_bytes()
    assert run(compose(["action=stats", "name=a"])).metrics["train"] == 30
    assert (tmp_path / "outputs" / "a" / "result.json").read_bytes() == before
    run(compose(["action=stats", "name=b", "data=wine"]))
    run(compose([*small, "name=b"]))
    with pytest.raises(ConfigError, match="input=x with action=stats: action=predict name=<run> reads it"):
        compose(["action=stats", "data=wine", "input=x"])


def test_missing_texts_and_numbers_of_rows_are_told(tmp_path):
    frame = pd.DataFrame({"number": np.arange(80), "job": ["cook", "", "pilot", "cook"] * 20, "y": ["a", "b"] * 40})
    frame.to_csv(tmp_path / "table.csv", index=False)
    text, found = stats_of(tmp_path, "data=csv", f"data.path={tmp_path}/table.csv", "data.target=y")
    assert found["missing"] == 20
    kept = 80 - found["val"] - found["test"]
    assert row(text, "number")[:2] == ["0", str(kept)]
    assert row(text, "job")[1] == "2"
    assert "number has a number of its own in each row: an id? data.drop=[number]" in text
    assert "job has a number" not in text


@pytest.mark.slow
def test_the_command_line_makes_one_folder(tmp_path):
    train("action=stats", "data=wine", cwd=tmp_path)
    (run_folder,) = (tmp_path / "outputs").glob("*/*")
    assert (run_folder / "stats" / "stats.txt").is_file()


@pytest.mark.slow
def test_the_command_line_prints_what_it_writes(tmp_path):
    printed = train("action=stats", "data=wine", "model=mynet", "name=a", cwd=tmp_path).stdout
    written = (tmp_path / "outputs" / "a" / "stats" / "stats.txt").read_text()
    assert printed.startswith(written)
    assert "outputs/a/stats/stats.txt, outputs/a/stats/stats.png" in printed
