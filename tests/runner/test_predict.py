"""action=predict: new samples and the test part, in the shape that a person reads, from the run folder alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.processes import train
from helpers.samples import Streamed
from lightning import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset

from normlab import compose, run
from normlab.data.common.base import DataModule
from normlab.distributed import world
from normlab.errors import ConfigError
from normlab.models.net import Net
from normlab.norms.batch import Batch

SMALL = ["model=net", "logger=none", "trainer.max_epochs=2"]
TRUST = "trust=[test_predict]"  # the runs were fitted on data modules of this file
NAMES = ["ant", "bee"]


class Points(DataModule):
    """Points in a text file, three numbers and the class in each line; standardised."""

    task, input_shape, out_features, class_names = "classify", (3,), 2, NAMES

    def __init__(self, file: str, **splits):
        super().__init__(**splits)
        self.file = file

    def load(self):
        table = torch.tensor(np.loadtxt(self.file), dtype=torch.float32)
        return {"train": (table[:, :3], table[:, 3].long())}

    def preprocess(self, train):
        self.constants = torch.std_mean(train, 0)
        return self.standardise

    def standardise(self, x):
        std, mean = self.constants
        return (x - mean) / std

    def save(self, folder):
        super().save(folder)
        np.save(folder / "constants.npy", np.stack(self.constants))

    def restore(self, folder):
        super().restore(folder)
        self.constants = torch.from_numpy(np.load(folder / "constants.npy"))

    def read_input(self, path: Path):
        table = torch.tensor(np.loadtxt(path, ndmin=2), dtype=torch.float32)
        return self.standardise(table), [f"line {number + 1}" for number in range(len(table))]


class StreamedPoints(Points):
    def read_input(self, path):
        x, names = super().read_input(path)
        return Streamed(x), names


class Doubled(Points):
    """What is in the file is half of what the network takes."""

    def transform(self):
        return lambda x: 2 * x

    def read_input(self, path):
        x, names = super().read_input(path)
        return x / 2, names


def points(file, samples=80, columns=3):
    random = np.random.default_rng(0)
    x = random.normal(5, 3, (samples, columns))
    np.savetxt(file, np.column_stack([x, x[:, 0] > 5]))
    return x


@pytest.fixture
def fitted(tmp_path, monkeypatch):
    """A run outputs/a of data that is gone, and new samples in new.txt."""
    monkeypatch.chdir(tmp_path)
    points("train.txt")
    run(compose([*SMALL, "name=a", "data._target_=test_predict.Points", "+data.file=train.txt"]))
    Path("train.txt").unlink()
    np.savetxt("new.txt", np.random.default_rng(1).normal(5, 3, (7, 3)))
    return tmp_path / "outputs" / "a"


def expected(folder, x):
    """Probabilities by a way of their own: the network built here, its weights, and the constants of the file."""
    std, mean = np.load(folder / "constants.npy")
    state = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    network = Net(Batch(), (3,), 2)
    network.load_state_dict({key.removeprefix("network."): value for key, value in state.items()})
    with torch.no_grad():
        return torch.softmax(network.eval()(torch.tensor((x - mean) / std, dtype=torch.float32)), 1).numpy()


@pytest.mark.parametrize("kind", ["Points", "StreamedPoints", "Doubled"])
@pytest.mark.parametrize("batch_size", [64, 3, 1])
def test_new_samples_need_the_run_folder_alone(fitted, kind, batch_size):
    before = {path: path.read_bytes() for path in fitted.rglob("*") if path.is_file()}
    changed = [f"data._target_=test_predict.{kind}", f"+data.batch_size={batch_size}"]
    result = run(compose(["action=predict", "name=a", TRUST, "input=new.txt", *changed]))
    table = pd.read_csv(fitted / "predict" / "predictions.csv")
    assert list(table) == ["sample", "prediction", "p_ant", "p_bee"]
    assert table["sample"].tolist() == [f"line {number}" for number in range(1, 8)]
    wanted = expected(fitted, np.loadtxt("new.txt"))
    np.testing.assert_allclose(table[["p_ant", "p_bee"]], wanted, rtol=1e-5)
    assert table["prediction"].tolist() == [NAMES[place] for place in wanted.argmax(1)]
    pd.testing.assert_frame_equal(result.predictions, table, check_dtype=False, rtol=1e-6)
    assert json.loads((fitted / "predict" / "result.json").read_text())["status"] == "finished"
    assert all(path.read_bytes() == content for path, content in before.items())  # the fit's files are as they were
    assert not list(fitted.rglob("*.part"))


def test_the_test_part_has_its_targets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit = run(compose([*SMALL, "data=iris", "name=a", "task.class_weights=balanced"]))
    table = run(compose(["action=predict", "name=a", TRUST])).predictions
    assert list(table) == ["sample", "target", "prediction", "p_setosa", "p_versicolor", "p_virginica"]
    assert table["sample"].tolist() == list(range(1, 31))
    assert (table["target"] == table["prediction"]).mean() == pytest.approx(fit.metrics["test/acc"])
    assert (tmp_path / "outputs" / "a" / "predict" / "predictions.csv").read_text().startswith("sample,target,predi")


def test_a_target_to_regress_is_told_in_its_own_units(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit = run(compose([*SMALL, "data=diabetes", "name=a", "trainer.max_epochs=5"]))
    table = run(compose(["action=predict", "name=a", TRUST])).predictions
    assert list(table) == ["sample", "target", "prediction"]
    assert ((table["target"] - table["prediction"]) ** 2).mean() == pytest.approx(fit.metrics["test/mse"], rel=1e-5)


class TwoTargets(Points):
    task, class_names = "regress", ()

    def load(self):
        table = torch.tensor(np.loadtxt(self.file), dtype=torch.float32)
        return {"train": (table[:, :3], 100 + table[:, :2] * 20)}


def test_two_targets_have_two_columns_and_the_checkpoint_their_units(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    points("train.txt")
    run(compose([*SMALL, "name=a", "data._target_=test_predict.TwoTargets", "+data.file=train.txt"]))
    Path("train.txt").unlink()
    np.savetxt("new.txt", np.full((2, 3), 5.0))
    table = run(compose(["action=predict", "name=a", TRUST, "input=new.txt"])).predictions
    assert list(table) == ["sample", "prediction_0", "prediction_1"]
    assert table.drop(columns="sample").to_numpy().min() > 50  # not standardised


@pytest.mark.slow
def test_one_line_at_the_end_says_how_many_where_and_what(tmp_path):
    train(*SMALL, "data=iris", "name=a", cwd=tmp_path)
    lines = train("action=predict", "name=a", cwd=tmp_path).stdout.splitlines()
    assert lines[-2].startswith("30 rows in outputs/a/predict/predictions.csv: ")
    assert lines[-2].count("%") >= 1
    assert lines[-1].endswith("outputs/a/predict")


def test_the_settings_of_several_processes_do_not_stand_in_the_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(compose([*SMALL, "data=iris", "name=a", "trainer=cpu"]))
    file = tmp_path / "outputs" / "a" / "config.yaml"
    file.write_text(file.read_text().replace("devices: 1", "devices: 2"))  # a run on two devices has that
    assert len(run(compose(["action=predict", "name=a", TRUST])).predictions) == 30
    with pytest.raises(
        ConfigError, match="action=predict cannot be combined with trainer.devices=2: it takes one proc"
    ):
        compose(["action=predict", "name=a", TRUST, "trainer.devices=2"])


def test_input_leaves_the_run_the_same(fitted):
    run(compose(["action=predict", "name=a", TRUST, "input=new.txt"]))
    told, fit = (json.loads((folder / "result.json").read_text()) for folder in (fitted / "predict", fitted))
    assert told["config_hash"] == fit["config_hash"]


@pytest.mark.parametrize("typed", [["action=predict", "name=a", TRUST], ["action=stats", "name=b"]], ids=" ".join)
def test_processes_that_torchrun_started_are_refused(fitted, monkeypatch, typed):
    variables = {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "1"}
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ConfigError, match=rf"{typed[0]} under torchrun: start python train.py without it"):
        world.check(compose(typed))


def test_the_network_is_in_eval_mode_and_a_stray_train_is_found(fitted, monkeypatch):
    original = Net.forward

    def forward(self, x):
        return original(self.train(), x)

    monkeypatch.setattr(Net, "forward", forward)
    with pytest.raises(RuntimeError, match=r"network is in train mode during evaluation"):
        run(compose(["action=predict", "name=a", TRUST, "input=new.txt", "+data.batch_size=3"]))


def test_a_limit_of_batches_is_kept(fitted):
    typed = [
        "action=predict",
        "name=a",
        TRUST,
        "input=new.txt",
        "+data.batch_size=3",
        "+trainer.limit_predict_batches=2",
    ]
    assert run(compose(typed)).predictions["sample"].tolist() == [f"line {number}" for number in range(1, 7)]


def test_statistics_of_the_batch_need_batches_of_more_than_one(fitted):
    points("train.txt")
    typed = ["name=b", "data._target_=test_predict.Points", "+data.file=train.txt", "norm.track_running_stats=false"]
    run(compose([*SMALL, *typed]))
    typed = ["action=predict", "name=b", TRUST, "input=new.txt"]
    with pytest.raises(ConfigError, match=r"evaluation batch holds 1 sample, and bn1 takes statistics of the batch"):
        run(compose([*typed, "+data.batch_size=3"]))


def test_an_answer_that_is_not_a_number_is_told_by_its_sample(fitted):
    table = np.loadtxt("new.txt")
    table[[2, 5], 1] = np.nan
    np.savetxt("new.txt", table)
    with pytest.raises(
        FloatingPointError,
        match=r"2 of 7 samples with NaN or inf \(sample line 3, line 6\): 2 of .* NaN or inf in x; clean the data",
    ):
        run(compose(["action=predict", "name=a", TRUST, "input=new.txt"]))
    assert not (fitted / "predict" / "predictions.csv").exists()
    assert json.loads((fitted / "predict" / "result.json").read_text())["status"] == "failed"


@pytest.mark.parametrize(
    ("columns", "rows", "kind", "message"),
    [
        (4, 3, "NoScaling", r"input=new.txt: samples have the shape \(4,\); the network takes \(3,\)"),
        (3, 0, "NoScaling", "input=new.txt holds no samples"),
    ],
)
@pytest.mark.filterwarnings("ignore:loadtxt")
def test_input_that_does_not_fit_is_refused(fitted, columns, rows, kind, message):
    np.savetxt("new.txt", np.ones((rows, columns)))
    with pytest.raises(ConfigError, match=message):
        run(compose(["action=predict", "name=a", TRUST, "input=new.txt", f"data._target_=test_predict.{kind}"]))
    assert json.loads((fitted / "predict" / "result.json").read_text())["status"] == "refused"


class NoScaling(Points):
    def standardise(self, x):
        return x


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["action=predict", "name=a", TRUST, "input=nwe.txt"], "input=nwe.txt: there is no such file or folder"),
        (["action=predict", "name=a", TRUST, "input="], "input= is empty: expected a file or folder of new samples"),
        (["action=predict", "input=new.txt"], "action=predict needs a run: name=<run>, or ckpt="),
        (["action=predict", "name=b", "input=new.txt"], "action=predict: there is no run in outputs/b"),
        (["action=predict", "name=a", TRUST, "ckpt=lst", "input=new.txt"], "ckpt=lst: there is no file lst"),
        (
            ["action=validate", "name=a", TRUST, "input=new.txt"],
            "input=new.txt with action=validate: action=predict name=<run> reads",
        ),
        (["name=c", "input=new.txt"], "input=new.txt with action=fit: action=predict name=<run> reads it"),
        (
            ["action=predict", "name=untrained", TRUST],
            "action=predict: outputs/untrained has no checkpoint yet; let its fit",
        ),
        (["action=predict", "name=older", TRUST, "input=new.txt"], "input=new.txt: outputs/older has no data.json"),
        (["-m", "action=predict", "name=a"], "action= with -m: only fits are swept"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_refused_without_torch(fitted, typed, message):
    """By the checks of the command line, which import none: test_config.py."""
    from normlab.config.sweep import check_sweep

    shutil.copytree(fitted, fitted.parent / "older")
    (fitted.parent / "older" / "data.json").unlink()
    shutil.copytree(fitted, fitted.parent / "untrained", ignore=lambda *_: ["checkpoints"])
    with pytest.raises(ConfigError) as refusal:
        check_sweep(typed[1:]) if typed[0] == "-m" else compose(typed)
    assert str(refusal.value).startswith(message)
    assert not (fitted / "predict").exists()


def test_a_data_set_that_reads_no_files_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(compose([*SMALL, "data=iris", "name=a"]))
    Path("new.csv").touch()
    with pytest.raises(ConfigError, match=r"input=new.csv: Iris reads no files; without input= its test part is taken"):
        run(compose(["action=predict", "name=a", TRUST, "input=new.csv"]))


class Own(LightningDataModule):
    """Its pixels are bytes that it makes numbers of on the device, and its samples to predict have no target."""

    x = torch.randint(0, 255, (48, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def train_dataloader(self):
        return DataLoader(TensorDataset(self.x, (self.x[:, 0] > 127).long()), 16)

    val_dataloader = test_dataloader = train_dataloader

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return [part.float() / 255 if part.dtype == torch.uint8 else part for part in batch]


class OwnToPredict(Own):
    def predict_dataloader(self):
        return DataLoader(TensorDataset(self.x[:10]), 4)


def test_own_data_is_predicted_through_its_own_hooks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(compose([*SMALL, "name=a", "data._target_=test_predict.Own"]))
    test_part = run(compose(["action=predict", "name=a", TRUST])).predictions
    assert test_part["target"].tolist() == [str(int(first > 127)) for first in Own.x[:, 0]]
    given = OwnToPredict()
    for _ in range(2):  # the second time with an object that was adopted before
        table = run(compose(["action=predict", "name=a", TRUST]), data=given).predictions
        assert list(table) == ["sample", "prediction", "p_0", "p_1"]
        np.testing.assert_allclose(table["p_1"], test_part["p_1"][:10], rtol=1e-6)
    with pytest.raises(ConfigError, match=r"input=outputs: outputs/a has no data.json .* from Python too"):
        compose(["action=predict", "name=a", TRUST, "input=outputs"])
