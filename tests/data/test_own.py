"""Data of a person's own: a LightningDataModule named in the configuration or given from Python, and datasets."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.processes import train
from lightning import LightningDataModule
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from normlab import DataModule, compose, run
from normlab.errors import ConfigError

SMALL = ["model=net", "logger=none", "trainer.max_epochs=2"]

X = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
TARGET = X[:, 0] * 30 + 100


class Mine(LightningDataModule):
    """Sets its parts up for each stage, as Lightning's tutorials do."""

    def __init__(self, size: int = 16, flip: bool = False):
        super().__init__()
        self.size, self.flip = size, flip
        self.seed = "mine"

    def setup(self, stage):
        y = 1 - Y if self.flip else Y
        if stage in ("fit", "validate"):
            self.train, self.val = TensorDataset(X, y), TensorDataset(X[:32], y[:32])
        if stage == "test":
            self.test = TensorDataset(X[32:], y[32:])

    def train_dataloader(self):
        return DataLoader(self.train, self.size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, self.size)

    def test_dataloader(self):
        return DataLoader(self.test, self.size)


class Untested(Mine):
    test_dataloader = LightningDataModule.test_dataloader


class Unvalidated(Mine):
    val_dataloader = LightningDataModule.val_dataloader


class Several(Mine):
    def val_dataloader(self):
        return [DataLoader(self.val, self.size), DataLoader(self.train, self.size)]


class Stated(Mine):
    """States all facts, so that its batches need not be read for them."""

    task, input_shape, out_features = "classify", (5,), 2

    def __init__(self):
        super().__init__()
        self.read = 0

    def train_dataloader(self):
        self.read += 1
        return DataLoader(self.train, self.size)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


MODULE = """
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset


class Mine(LightningDataModule):
    def __init__(self, batch_size):
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.randn(24, 5), torch.arange(24) % 2), self.batch_size)

    val_dataloader = train_dataloader
"""


def datasets(x, y):
    return [TensorDataset(x, y)] * 3


@pytest.mark.parametrize("option", [pytest.param("yaml", marks=pytest.mark.slow), "typed"])
def test_a_data_module_named_in_the_configuration_trains(tmp_path, monkeypatch, option, caplog):
    monkeypatch.chdir(tmp_path)
    if option == "yaml":  # what conf/data/mine.yaml would hold
        config = compose([*SMALL, "name=a"])
        config.data = {"_target_": "test_own.Mine", "size": 8, "flip": True}
    else:
        config = compose([*SMALL, "name=a", "data._target_=test_own.Mine", "+data.size=8", "+data.flip=true"])
    result = run(config)
    folder = tmp_path / "outputs" / "a"
    saved = OmegaConf.load(folder / "config.yaml").data
    assert saved == {"_target_": "test_own.Mine", "size": 8, "flip": True}
    assert "own data: splits, order and augmentation are yours" in (folder / "train.log").read_text()
    assert json.loads((folder / "result.json").read_text())["steps"] == 2 * 8
    for action, stage in (("validate", "val"), ("test", "test")):
        again = run(compose([f"action={action}", "name=a", "trust=[test_own]"]))
        assert again.metrics == {key: value for key, value in result.metrics.items() if key.startswith(stage)}


def test_its_seed_stays_its_own(tmp_path):
    data = Mine()
    run(compose(SMALL), folder=tmp_path, data=data)
    assert data.seed == "mine"


@pytest.mark.parametrize("typed", ["steps_per_execution=3", "trainer.overfit_batches=1", "nonfinite=raise"])
def test_it_is_used_and_not_changed(tmp_path, typed):
    data = Mine()
    data.setup("fit")
    data.setup("test")
    before = [*vars(data)]
    run(compose([*SMALL, typed]), folder=tmp_path, data=data)
    assert [*vars(data)] == before
    assert [tuple(x.shape) for x, _ in data.train_dataloader()] == [(16, 5)] * 4


def test_it_may_be_used_by_run_after_run(tmp_path):
    data, plain = Mine(), [*SMALL, "seed=3"]
    run(compose([*SMALL, "steps_per_execution=2"]), folder=tmp_path / "chunks", data=data)
    run(compose([*SMALL, "trainer.overfit_batches=2"]), folder=tmp_path / "few", data=data)
    again = run(compose(plain), folder=tmp_path / "again", data=data)
    assert again.metrics == run(compose(plain), folder=tmp_path / "fresh", data=Mine()).metrics


def test_it_resumes_and_tells_another_configuration_apart(tmp_path):
    typed = [*SMALL, "data._target_=test_own.Mine"]
    run(compose(typed), folder=tmp_path)
    assert run(compose(typed), folder=tmp_path).task is None  # finished
    with pytest.raises(ConfigError, match=r"another run; (.|\n)*data.flip: null there, true here"):
        run(compose([*typed, "+data.flip=true"]), folder=tmp_path)


@pytest.mark.slow
def test_the_command_line_takes_it(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = train(*SMALL, "data._target_=mine.Mine", "data.batch_size=8", "name=a", cwd=tmp_path)
    assert "test/acc" not in done.stdout
    assert json.loads((tmp_path / "outputs" / "a" / "result.json").read_text())["steps"] == 2 * 3
    train("action=validate", "name=a", cwd=tmp_path, check=2)
    train("action=validate", "name=a", "trust=[mine]", cwd=tmp_path)
    told = train("data._target_=mine.Mine", "+data.sise=8", cwd=tmp_path, check=2).stderr
    assert told.splitlines() == ["refused: data: mine.Mine got an unexpected keyword argument 'sise'"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["data._target_=nowhere.Mine"], "data._target_=nowhere.Mine cannot be built: .*nowhere"),
        (["data._target_=torch.nn.Identity"], "data._target_=torch.nn.Identity is no LightningDataModule"),
        (["data._target_=test_own.Mine", "+data.sise=8"], "unexpected keyword argument 'sise'"),
        (
            ["data._target_=test_own.Unvalidated"],
            "own data: Unvalidated has no val_dataloader; a fit needs train and val",
        ),
        (["data._target_=test_own.Several"], "own data: val_dataloader gives several loaders; expected one"),
        (["data._target_=test_own.Mine", "trainer=ddp_cpu"], "own data is not cut into parts for 2 processes"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_trained_on_is_refused_before_training(tmp_path, typed, message):
    with pytest.raises(ConfigError, match=message):
        run(compose([*SMALL, *typed]), folder=tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "refused"


def test_without_a_test_part_a_fit_ends_and_a_test_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(compose([*SMALL, "name=a", "data._target_=test_own.Untested"]))
    assert not any(name.startswith("test/") for name in result.metrics)
    for action, message in (("test", "action=test: this data has no test part"), ("predict", "say what to predict")):
        with pytest.raises(ConfigError, match=message):
            run(compose([f"action={action}", "name=a", "trust=[test_own]"]))


def test_stated_facts_are_believed_and_the_batches_not_read_for_them(tmp_path):
    data = Stated()
    config = compose([*SMALL, "task.class_weights=null"])
    run(config, folder=tmp_path, data=data)
    assert data.read <= 4  # a look at its kind, one at its size, one at its number of samples, and the fit's own


def test_balanced_weights_count_its_classes(tmp_path):
    result = run(compose([*SMALL, "task.class_weights=balanced"]), folder=tmp_path, data=Stated())
    counts = torch.bincount(Y).double()
    torch.testing.assert_close(result.task.class_weights.double(), 64 / (2 * counts))


def test_a_target_of_one_dimension_is_that_of_a_column(tmp_path):
    """Taken as it is, (N,) against outputs (N, 1) would broadcast to (N, N)."""
    single = run(compose(SMALL), folder=tmp_path / "single", data=datasets(X, TARGET))
    column = run(compose(SMALL), folder=tmp_path / "column", data=datasets(X, TARGET[:, None]))
    double = run(compose(SMALL), folder=tmp_path / "double", data=datasets(X, TARGET.double()))
    assert single.metrics == column.metrics == double.metrics
    state = single.task.state_dict()
    assert all(torch.equal(value, column.task.state_dict()[key]) for key, value in state.items())


def test_whole_numbers_may_be_a_target_where_the_data_says_so(tmp_path):
    class Counts(Mine):
        task = "regress"

        def setup(self, stage):
            self.train = self.val = self.test = TensorDataset(X, TARGET.long())

    result = run(compose(SMALL), folder=tmp_path, data=Counts())
    assert "test/r2" in result.metrics
    assert result.task.target_mean.item() == pytest.approx(TARGET.long().double().mean().item(), rel=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, Y - 1, "own data, training part: 3. of 64 labels, such as -1, are none of 0 to 0"),
        (X, Y.int(), r"own data, training part: labels are int32; classes are whole numbers, int64: y.long\(\)"),
        (X, Y.bool(), "own data, training part: labels are bool; classes are whole numbers"),
        (X, Y[:, None], r"own data, training part: labels have the shape \(64, 1\); expected one class a sample"),
        (X, Y * 0, "own data, training part: all labels are 0; one class leaves nothing to learn"),
        (X.double(), Y, r"own data, .* part: samples are float64; networks take float32: x.float\(\)"),
        ((X * 9).byte(), Y, "own data, .* part: samples are uint8; networks take float32"),
        (X, TARGET * np.inf, "own data, training part: 64 of 64 targets are NaN or inf; leave those samples out"),
        (X, TARGET * 0, "own data, training part: the target is 0 in all 64 samples"),
        (X[:0], Y[:0], "data: the train dataset is empty"),
    ],
)
def test_samples_and_targets_that_do_not_fit_are_told(tmp_path, x, y, message):
    with pytest.raises(ConfigError, match=message):
        run(compose(SMALL), folder=tmp_path, data=datasets(x, y))


@pytest.mark.parametrize("steps", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_label_beyond_the_outputs_is_told_in_any_part(tmp_path, steps):
    wrong = Y.clone()
    wrong[5] = 7
    parts = {name: TensorDataset(X, Y) for name in ("train", "val", "test")}
    for part, where in (("val", "validation or test part"), ("test", "validation or test part")):
        given = [TensorDataset(X, wrong) if name == part else dataset for name, dataset in parts.items()]
        message = f"own data, {where}: 1 of 32 labels, such as 7, are none of 0 to 1, which out_features=2 stands for"
        with pytest.raises(ConfigError, match=message):
            run(compose([*SMALL, f"steps_per_execution={steps}"]), folder=tmp_path / part, data=given)

    class Claims(Stated):
        def setup(self, stage):
            self.train = self.val = self.test = TensorDataset(X, wrong)

    with pytest.raises(ConfigError, match=r"own data, .* part: 1 of 16 labels, such as 7"):
        run(compose([*SMALL, f"steps_per_execution={steps}"]), folder=tmp_path / "train", data=Claims())


def test_labels_of_a_normlab_data_module_are_looked_at_before_training():
    class Wrong(DataModule):
        task, input_shape, out_features = "classify", (5,), 2

        def __init__(self, y):
            super().__init__()
            self.y = y

        def load(self):
            return {"train": (X, self.y)}

    for y, message in ((Y - 1, "train part: .* such as -1, are none of 0 to 1"), (Y.float(), "labels are float32")):
        with pytest.raises(ConfigError, match=message):
            Wrong(y).setup()


def test_shares_of_classes_are_labels(tmp_path):
    shares = torch.nn.functional.one_hot(Y, 2).float()

    class Given(Stated):
        def __init__(self, y):
            super().__init__()
            self.y = y

        def setup(self, stage):
            self.train = self.val = self.test = TensorDataset(X, self.y)

    soft, hard = (run(compose(SMALL), folder=tmp_path / str(y.ndim), data=Given(y)) for y in (shares, Y))
    assert soft.metrics["val/loss"] == pytest.approx(hard.metrics["val/loss"], rel=1e-6)


def test_part_of_the_batches_and_streams_without_a_length(tmp_path):
    limited = run(compose([*SMALL, "trainer.limit_train_batches=2"]), folder=tmp_path / "part", data=Mine())
    assert json.loads((tmp_path / "part" / "result.json").read_text())["steps"] == 2 * 2
    assert limited.score is not None
    steps = ["scheduler=none", "data.batch_size=16"]
    streamed = run(compose([*SMALL, *steps]), folder=tmp_path / "stream", data=[Stream(), Stream()])
    assert streamed.score is not None
    assert json.loads((tmp_path / "stream" / "result.json").read_text())["steps"] == 2 * 4


def test_datasets_of_an_earlier_run_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(compose([*SMALL, "name=a"]), data=datasets(X, Y))
    with pytest.raises(ConfigError, match=r"the data of this run was given from Python: normlab.run\(config, data="):
        run(compose(["action=test", "name=a"]))
    assert run(compose(["action=test", "name=a"]), data=datasets(X, Y)).metrics


LOADER = DataLoader(TensorDataset(X, Y), 16)
NUMBERS = X.double().numpy()


@pytest.mark.parametrize(
    "given",
    [
        [(X, Y)] * 3,
        pytest.param(((NUMBERS, Y.numpy()), (NUMBERS, Y.numpy())), marks=pytest.mark.slow),
        pytest.param([(NUMBERS.tolist(), Y.tolist())] * 2, marks=pytest.mark.slow),
        [(pd.DataFrame(NUMBERS), pd.Series(Y))] * 3,
        pytest.param(torch.utils.data.random_split(TensorDataset(X, Y), [0.5, 0.25, 0.25]), marks=pytest.mark.slow),
        pytest.param((LOADER, LOADER), marks=pytest.mark.slow),
        (LOADER, TensorDataset(X, Y), (X, Y)),
        pytest.param([[(x, int(y)) for x, y in zip(X, Y, strict=True)]] * 2, marks=pytest.mark.slow),
    ],
    ids=["tensors", "numpy", "lists", "pandas", "random_split", "loaders", "mixed", "samples"],
)
def test_each_part_may_be_a_dataset_a_loader_or_arrays(tmp_path, monkeypatch, given):
    """The same script, run again, resumes, and then finds its run finished."""
    monkeypatch.chdir(tmp_path)
    first = run(compose([*SMALL, "name=a", "trainer.max_epochs=1"]), data=given)
    assert first.score is not None
    second = run(compose([*SMALL, "name=a", "extend=true"]), data=given)
    assert json.loads((tmp_path / "outputs/a/result.json").read_text())["epochs"] == 2
    third = run(compose([*SMALL, "name=a"]), data=given)
    assert third.task is None
    assert third.score == second.score


@pytest.mark.slow
def test_what_of_given_data_a_run_is_known_by(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(compose([*SMALL, "name=a", "data.batch_size=16"]), data=datasets(X, Y))
    saved = OmegaConf.load(tmp_path / "outputs/a/config.yaml").data
    assert saved.batch_size == 16
    other = X.clone()
    other[3, 2] += 1
    for typed, given, key in (
        (["data.batch_size=8"], datasets(X, Y), "data.batch_size: 16 there, 8 here"),
        (["data.batch_size=16"], datasets(X[:60], Y[:60]), "data.train: 64 samples, .* there, 60 samples"),
        (["data.batch_size=16"], datasets(other, Y), "data.train: 64 samples"),
    ):
        config = compose([*SMALL, "name=a", *typed])
        with pytest.raises(ConfigError, match=key):
            run(config, data=given)
    with pytest.raises(ConfigError, match=r"another run(.|\n)*data._target_"):
        run(compose([*SMALL, "name=a"]))
    train(*SMALL, "name=a", cwd=tmp_path, check=2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (pd.DataFrame({"a": [1.0]}), "got a DataFrame; write it by frame.to_csv"),
        (TensorDataset(X, Y), r"got a single TensorDataset; .*random_split\(dataset"),
        (LOADER, "got a single DataLoader"),
        (X, "got a single Tensor"),
        ((X, Y), r"got arrays; .* data=\(\(x_train, y_train\), \(x_val, y_val\)\)"),
        ({"train": (X, Y)}, "got a dict; expected"),
        ("train.csv", "got a str; expected"),
        (7, "got a int; expected"),
        ([TensorDataset(X, Y)], "got 1 parts"),
        ([(X, Y[:9])] * 2, "train has 64 samples x and 9 targets y"),
        ([(X, ["a"] * 64)] * 2, "data: y of train holds no numbers"),
        ([(X, Y), 3], "val is a int"),
        ([(X, Y), (X, Y), TensorDataset(X)], "the test part has no targets, which action=predict alone"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_data_to_train_on_is_told_in_a_line(tmp_path, given, message):
    with pytest.raises(ConfigError, match=message) as refusal:
        run(compose(SMALL), folder=tmp_path, data=given)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("typed", ["data.val_fraction=0.3", "data.batch_size=8"])
def test_typed_keys_that_given_data_does_not_follow_are_refused(tmp_path, typed):
    with pytest.raises(ConfigError, match=f"{typed}: the data given from Python does not follow it"):
        run(compose([*SMALL, typed]), folder=tmp_path, data=Mine())


@pytest.mark.parametrize("config", [{"model": "net"}, ["model=net"], None], ids=str)
def test_a_config_is_what_compose_gives(config):
    with pytest.raises(ConfigError, match=r"expected normlab.compose\("):
        run(config)
    with pytest.raises(ConfigError, match="expected a list of texts"):
        compose("model=net")


def test_samples_to_predict_need_no_targets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = [(X, Y), (X, Y)]
    run(compose([*SMALL, "name=a"]), data=parts)
    predict = compose(["action=predict", "name=a"])
    table = run(predict, data=[*parts, TensorDataset(X[:10])]).predictions
    known = run(predict, data=[*parts, (X[:10], Y[:10])]).predictions
    assert table is not None
    assert known is not None
    assert list(table) == ["sample", "prediction", "p_0", "p_1"]
    assert table.equals(known.drop(columns="target"))


def test_its_own_hook_before_a_batch_travels_comes_first(tmp_path):
    class Bytes(Mine):
        def setup(self, stage):
            self.train = self.val = self.test = TensorDataset((X * 10).abs().byte(), Y)

        def on_before_batch_transfer(self, batch, dataloader_idx):
            return batch[0].float() / 255, batch[1]

    assert run(compose(SMALL), folder=tmp_path, data=Bytes()).score is not None
