"""What a recorder writes of a run, beside the same run looked at by hand."""

import csv

import pytest
import torch
from helpers import warm
from helpers.asking import asked
from helpers.cases import rest_slow
from helpers.folders import assert_same_run, assert_same_weights
from lightning import Callback
from torch import nn

from normlab import compose, run
from normlab.errors import ConfigError, DamagedError
from normlab.folder.recorded import COLUMNS, append_recorded, cut_recorded, read_recorded
from normlab.tasks import looks

WINE = ["model=net", "data=wine", "logger=none", "trainer=cpu", "trainer.max_epochs=3", "data.batch_size=20"]
RECORDS = ["callbacks=recorder", "callbacks.recorder.every=4"]  # 6 batches an epoch


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    run(compose([*WINE, *RECORDS]), folder=folder)
    return folder


def rows_of(folder):
    return list(csv.DictReader((folder / "norms.csv").read_text().splitlines()))


class ByHand(Callback):
    """Notes in each step what can be told of the layer's weights, gradients, rate and statistics."""

    def __init__(self, with_bias):
        self.with_bias, self.steps = with_bias, {}

    def on_train_start(self, trainer, pl_module):
        self.network = pl_module.network
        self.network.bn1.register_forward_pre_hook(self._before)

    def _before(self, layer, args):
        if (
            not layer.training
        ):  # the recorder looks at the order of the layers, where this hook would be one more reader
            return
        means = getattr(layer, "running_mean", None)
        self.seen = args[0].detach(), None if means is None else means.clone()

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        layer, before, (x, means) = self.network.bn1, self.network.fc1, self.seen
        weights = before.weight.flatten().tolist() + (before.bias.tolist() if self.with_bias else [])
        gradients = [*layer.weight.grad.tolist(), *layer.bias.grad.tolist()]
        self.steps[trainer.global_step] = {
            "epoch": trainer.current_epoch,
            "gamma": float(layer.weight.detach().mean()),
            "beta_min": float(layer.bias.detach().min()),
            "gradient": sum(value**2 for value in gradients) ** 0.5,
            "effective_rate": optimizer.param_groups[0]["lr"] / sum(value**2 for value in weights),
        }
        if means is not None:
            self.steps[trainer.global_step]["drift"] = float(((means - x.mean(0)).abs() / x.std(0)).mean())


@pytest.mark.parametrize(
    ("norm", "every"), rest_slow([("batch", 1), ("batch", 4), ("layer", 4)], lambda case: case[1] == 4)
)
def test_rows_are_what_a_look_by_hand_finds(tmp_path, norm, every):
    notes = ByHand(with_bias=norm == "layer")
    run(compose([*WINE, *RECORDS, f"callbacks.recorder.every={every}", f"norm={norm}"]), tmp_path, callbacks=[notes])
    rows = rows_of(tmp_path)
    assert [(int(row["step"]), row["layer"]) for row in rows] == [(step, "bn1") for step in range(0, 18, every)]
    for row in rows:
        expected = notes.steps[int(row["step"])]
        assert {key: float(row[key]) for key in expected} == pytest.approx(expected, rel=1e-4)
        assert (row["drift"] == row["variance_ratio"] == "") == (norm == "layer")
        assert row["channels"] == "20"


def test_training_is_as_without_it(tmp_path):
    overrides = ["model=resnet", "data.size=8", "data.channels=1", "logger=none", "trainer.max_epochs=1"]
    overrides += ["trainer.limit_train_batches=5", "model.checkpointing=true"]
    run(compose(overrides), folder=tmp_path / "without")
    run(compose([*overrides, *RECORDS]), folder=tmp_path / "with")
    assert_same_weights(tmp_path / "with", tmp_path / "without")
    rows = rows_of(tmp_path / "with")
    assert [row["layer"] for row in rows] == 2 * [*(f"blocks.{n}.bn{m}" for n in range(3) for m in (1, 2)), "bn"]
    known = [row["layer"] for row in rows if row["effective_rate"]]
    assert known == 2 * [f"blocks.{n}.bn2" for n in range(3)], "what the stem gives goes around bn1 too"


MOMENTS = [("on_train_batch_start", 9), ("on_train_batch_end", 11), ("on_validation_start", 2)]


@pytest.mark.parametrize(("hook", "count"), rest_slow(MOMENTS, lambda case: case[1] == 11))
def test_a_run_that_was_interrupted_ends_with_the_rows_of_one_that_was_not(tmp_path, whole, hook, count):
    overrides = [*WINE, *RECORDS]
    config = asked(overrides, hook=hook, count=count, mark=str(tmp_path / "mark"), rank=0)
    with pytest.raises(KeyboardInterrupt):
        run(config, folder=tmp_path / "run")
    run(compose(overrides), folder=tmp_path / "run")
    assert_same_run(tmp_path / "run", whole)
    assert (tmp_path / "run" / "norms.csv").read_text() == (whole / "norms.csv").read_text()


@pytest.mark.parametrize("save_every", ["null", pytest.param("5steps", marks=pytest.mark.slow)])
def test_a_run_that_was_killed_ends_with_the_rows_of_one_that_was_not(tmp_path, save_every):
    overrides = [*WINE, *RECORDS, f"save_every={save_every}", "logger=csv"]
    run(compose(overrides), folder=tmp_path / "whole")
    done = warm.call("helpers.dying.run_to_death", overrides, str(tmp_path / "run"), "on_train_batch_end", 10).wait()
    assert done.returncode == 9, done.stderr
    assert rows_of(tmp_path / "run")[-1]["step"] == "8"
    with (tmp_path / "run" / "norms.csv").open("a") as lines:
        lines.write("12,2,bn1,0.")
    run(compose(overrides), folder=tmp_path / "run")
    assert (tmp_path / "run" / "norms.csv").read_text() == (tmp_path / "whole" / "norms.csv").read_text()
    logged = [
        sorted(
            (row["step"], name, row[name])
            for row in csv.DictReader((tmp_path / name_of_run / "csv" / "metrics.csv").read_text().splitlines())
            for name in row
            if name.startswith("norm_") and row[name]
        )
        for name_of_run in ("run", "whole")
    ]
    assert logged[0] == logged[1]
    assert {step for step, *_ in logged[0]} == {"0", "4", "8", "12", "16"}
    assert ("4", "norm_drift/bn1") in {each[:2] for each in logged[0]}


def test_of_batches_that_are_accumulated_the_last_before_a_step_is_recorded(tmp_path):
    class Steps(Callback):
        def __init__(self):
            self.drifts = []

        def on_train_start(self, trainer, pl_module):
            def note(layer, args):
                x = args[0].detach()
                if layer.training:
                    self.drifts.append(float(((layer.running_mean - x.mean(0)).abs() / x.std(0)).mean()))

            pl_module.network.bn1.register_forward_pre_hook(note)

    steps = Steps()
    overrides = [*WINE, *RECORDS, "callbacks.recorder.every=1", "trainer.accumulate_grad_batches=4"]
    overrides += ["trainer.max_epochs=1", "test=false"]
    run(compose(overrides), folder=tmp_path, callbacks=[steps])
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == ["0", "1"]
    assert [float(row["drift"]) for row in rows] == pytest.approx([steps.drifts[3], steps.drifts[5]], rel=1e-4)


@pytest.mark.parametrize("lag", [0, 4])
def test_a_batch_that_is_left_out_has_no_row(tmp_path, monkeypatch, lag):
    """With a lag, as a GPU has one, the device leaves it out and the processor learns of it later."""
    monkeypatch.setitem(looks.LAGS, "cpu", lag)

    class Spoil(Callback):
        def on_train_batch_start(self, trainer, task, batch, batch_idx):
            if trainer.global_step == 4:
                batch[0].fill_(float("nan"))

    overrides = [*WINE, *RECORDS, "nonfinite=skip", "trust=[test_recorder]"]
    run(compose(overrides), folder=tmp_path, callbacks=[Spoil()])
    assert [row["step"] for row in rows_of(tmp_path)] == ["0", "8", "12", "16"]


def test_compiled_networks_are_recorded_in_steps_that_run_as_written(tmp_path, monkeypatch, whole):
    compiles = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiles(self, backend="eager"))
    run(compose([*WINE, *RECORDS, "compile=true"]), folder=tmp_path)
    plain, compiled = rows_of(whole), rows_of(tmp_path)
    assert len(plain) == len(compiled) == 5
    for one, two in zip(plain, compiled, strict=True):
        assert {key: float(one[key] or 0) for key in COLUMNS[3:]} == pytest.approx(
            {key: float(two[key] or 0) for key in COLUMNS[3:]}, rel=1e-3
        )
    torch.compiler.reset()


@pytest.mark.slow
def test_two_processes_write_each_row_once_with_gradients_of_the_joint_batch(tmp_path, whole):
    two = [*WINE, *RECORDS, "trainer=ddp_cpu", "trainer.max_epochs=3", "data.batch_size=10"]  # of each process
    done = warm.call("helpers.dying.run_to_end", two, str(tmp_path / "two")).wait()
    assert done.returncode == 0, done.stderr
    one, two = rows_of(whole), rows_of(tmp_path / "two")
    assert [row["step"] for row in two] == [row["step"] for row in one]
    for key in ("gradient", "effective_rate", "gamma", "beta_max"):
        values = [[float(row[key]) for row in rows] for rows in (one, two)]
        assert values[1] == pytest.approx(values[0], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["steps_per_execution=4"], "callbacks=recorder looks into single steps.*steps_per_execution=4; use 1"),
        (["trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2"], "callbacks=recorder measures whole weights"),
        (["norm=none"], "callbacks=recorder: this network has no norm layer; leave it out"),
        (["callbacks.recorder.every=0"], "callbacks.recorder.every=0"),
    ],
)
def test_refusals(tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        run(compose([*WINE, *RECORDS, *overrides]), folder=tmp_path / "run")


def test_a_table_is_read_up_to_its_damage(tmp_path):
    file = tmp_path / "norms.csv"
    assert read_recorded(file) == []
    cut_recorded(file, 0)
    for step in (0, 5, 10):
        append_recorded(file, [{"step": step, "epoch": step // 5, "layer": layer, "drift": 0.5} for layer in "ab"])
    whole = file.read_bytes()
    assert [(row["step"], row["layer"]) for row in read_recorded(file)] == [
        (s, n) for s in ("0", "5", "10") for n in "ab"
    ]
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        lines = whole[:length].count(b"\n")
        assert len(read_recorded(file)) == max(0, lines - 1)
    file.write_bytes(whole.replace(b"5,1,a,0.5", b"5,1,a,x.5"))
    assert [row["step"] for row in read_recorded(file)] == ["0", "0"]
    file.write_bytes(whole)
    cut_recorded(file, 10)
    assert file.read_bytes() == whole[: len(file.read_bytes())]
    assert len(read_recorded(file)) == 4
    file.write_text("a,b\n1,2\n")
    with pytest.raises(DamagedError, match="another program"):
        cut_recorded(file, 0)
