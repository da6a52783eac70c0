"""The run folder: what it holds, resuming, refusing, and every way a run ends."""

import itertools
import json
import os
import shutil

import pytest
import torch
from filelock import FileLock
from helpers.cases import rest_slow
from helpers.folders import result_of, rows_of, state
from helpers.stopping import stopped
from lightning import Callback, LightningDataModule
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, TensorDataset

from normlab import compose, run
from normlab.callbacks.record import MetricsTable
from normlab.errors import ConfigError
from normlab.folder.checkpoints import load_weights
from normlab.runner.actions import steepest_fall

WINE = ["model=net", "data=wine", "logger=none", "trainer.max_epochs=3"]


def test_a_part_of_which_the_trainer_takes_a_share_has_no_number_of_samples(tmp_path):
    run(compose([*WINE, "trainer.limit_val_batches=1", "trainer.limit_test_batches=0.5"]), folder=tmp_path)
    assert result_of(tmp_path)["samples"].keys() == {"train"}


def test_a_run_leaves_what_the_readme_says(tmp_path):
    result = run(compose(WINE), folder=tmp_path / "run")
    folder = tmp_path / "run"
    names = {"config.yaml", "metrics.csv", "result.json", "environment.json", "train.log", "checkpoints"}
    assert names <= {path.name for path in folder.iterdir()}
    written = result_of(folder)
    assert written["status"] == "finished"
    assert written["score"] == result.score
    assert written["metrics"]["test/acc"] == result.metrics["test/acc"]
    assert (written["score_name"], written["score_mode"]) == ("val/acc", "max")
    assert (written["epochs"], written["steps"], written["seed"]) == (3, 3 * 8, 0)
    parts = compose(WINE).data
    tested = -(-178 * parts.test_fraction // 1)  # scikit-learn rounds so
    validated = -(-(178 - tested) * parts.val_fraction / (1 - parts.test_fraction) // 1)
    assert written["samples"] == {"train": 178 - tested - validated, "val": validated, "test": tested}
    assert written["parameters"] == sum(p.numel() for p in result.task.network.parameters())
    rows = rows_of(folder)
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert list(rows[0])[:4] == ["epoch", "step", "train/loss", "train/acc"]
    assert max(float(row["val/acc"]) for row in rows) == result.score
    (start,) = json.loads((folder / "environment.json").read_text())
    assert start["packages"]["torch"] == torch.__version__.split("+")[0] or start["packages"]["torch"]
    log = (folder / "train.log").read_text()
    assert log.count("`Trainer.fit` stopped: `max_epochs=3` reached.") == 1
    assert not list(folder.rglob("*.part"))


STOPPED = {
    "sgd onecycle": WINE,
    "adamw cosine many steps": [*WINE, "optimizer=adamw", "scheduler=cosine", "steps_per_execution=4"],
    "images": ["model=my_model", "data.size=8", "data.batch_size=200", "logger=none", "trainer.max_epochs=3"],
    "compiled": [*WINE, "compile=true"],
}
ERRORS = {"failed": RuntimeError("killed"), "interrupted": KeyboardInterrupt()}
IN_TURN = {(kind, end) for kind, end in zip(STOPPED, itertools.cycle(ERRORS), strict=False) if kind != "compiled"}


@pytest.mark.parametrize(("kind", "end"), rest_slow(itertools.product(STOPPED, ERRORS), IN_TURN.__contains__))
def test_a_stopped_run_resumes_and_ends_on_the_same_weights(tmp_path, monkeypatch, kind, end):
    overrides, error = STOPPED[kind], ERRORS[end]
    run(compose(overrides), folder=tmp_path / "whole")
    part = tmp_path / "part"
    stopped(part, overrides, error)
    assert result_of(part)["status"] == ("failed" if isinstance(error, RuntimeError) else "interrupted")
    run(compose(overrides), folder=part)
    whole, resumed = state(tmp_path / "whole"), state(part)
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][key]), key
    assert whole["global_step"] == resumed["global_step"]
    assert (part / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()
    first, second = result_of(tmp_path / "whole"), result_of(part)
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


class Looks(Callback):
    """Notes torch's own settings while a network trains."""

    def on_train_start(self, trainer, task):
        self.found = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()


def test_settings_of_torch_are_those_of_the_run_that_trains(tmp_path):
    """They hold for the whole process, where one job's would stay for the next."""
    looks = Looks()
    short = [*WINE, "trainer.max_epochs=1"]
    exact = [*short, "trainer.deterministic=true", "trainer.matmul_precision=high"]
    for name, overrides, expected in (("a", exact, ("high", True)), ("b", short, ("highest", False))):
        run(compose(overrides), folder=tmp_path / name, callbacks=[looks])
        assert looks.found == expected
        (start,) = json.loads((tmp_path / name / "environment.json").read_text())
        assert start["matmul_precision"] == expected[0]


def test_another_precision_of_products_is_another_run(tmp_path):
    stopped(tmp_path, WINE, RuntimeError())
    with pytest.raises(ConfigError, match="trainer.matmul_precision: null there, high here"):
        run(compose([*WINE, "trainer.matmul_precision=high"]), folder=tmp_path)
    older = OmegaConf.load(tmp_path / "config.yaml")
    del older.trainer["matmul_precision"]
    OmegaConf.save(older, tmp_path / "config.yaml")
    with pytest.raises(
        ConfigError, match="config.yaml lacks trainer.matmul_precision, and so is of an earlier normlab"
    ):
        run(compose(WINE), folder=tmp_path)


@pytest.mark.parametrize("key", ["tags", "task.class_weights"])
def test_the_folder_of_an_earlier_normlab_is_refused_in_a_line(key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stopped(tmp_path / "outputs/a", [*WINE, "name=a"], RuntimeError())
    older = OmegaConf.load("outputs/a/config.yaml")
    parent, _, name = key.rpartition(".")
    del (OmegaConf.select(older, parent) if parent else older)[name]
    OmegaConf.save(older, "outputs/a/config.yaml")
    with pytest.raises(ConfigError) as refusal:
        compose(["action=test", "name=a"])
    assert str(refusal.value) == (
        f"outputs/a/config.yaml lacks {key}, and so is of an earlier normlab: put a whole one in its place, or move it "
        "away"
    )
    older.pop("defaults"), older.pop("hydra")
    with pytest.raises(ConfigError, match=f"^normlab reads {key}, so it cannot be left out$"):
        run(older)


def test_seconds_count_the_start_that_was_killed(tmp_path):
    """Nobody could write them down, so they count up to the last epoch that it saved."""
    stopped(tmp_path, WINE, RuntimeError())
    killed = {**result_of(tmp_path), "status": "running", "seconds": 1000.0}
    (tmp_path / "result.json").write_text(json.dumps(killed))
    os.utime(tmp_path / "result.json", (5000, 5000))
    os.utime(tmp_path / "checkpoints" / "last.ckpt", (5500, 5500))
    run(compose(WINE), folder=tmp_path)
    assert 1500 < result_of(tmp_path)["seconds"] < 1900


def test_dropout_draws_the_same_after_resuming(tmp_path, monkeypatch):
    import normlab.models.net as net

    original = net.Net.forward
    dropped = lambda self, x: torch.nn.functional.dropout(original(self, x), 0.5, self.training)
    monkeypatch.setattr(net.Net, "forward", dropped)
    run(compose(WINE), folder=tmp_path / "whole")
    stopped(tmp_path / "part", WINE, RuntimeError())
    run(compose(WINE), folder=tmp_path / "part")
    whole, part = state(tmp_path / "whole")["state_dict"], state(tmp_path / "part")["state_dict"]
    assert all(torch.equal(whole[key], part[key]) for key in whole)


def test_a_finished_run_is_left_alone(tmp_path, capsys):
    first = run(compose(WINE), folder=tmp_path)
    before = (tmp_path / "result.json").read_text(), (tmp_path / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    again = run(compose(WINE), folder=tmp_path)
    assert "is finished: val/acc" in capsys.readouterr().out
    assert (again.score, again.task) == (first.score, None)
    assert before == (
        (tmp_path / "result.json").read_text(),
        (tmp_path / "checkpoints" / "last.ckpt").stat().st_mtime_ns,
    )


@pytest.mark.parametrize("scheduler", rest_slow(["onecycle", "cosine", "none"], lambda case: case[0] == "onecycle"))
def test_a_finished_run_trains_on_with_extend_only(tmp_path, scheduler):
    overrides = [*WINE, f"scheduler={scheduler}"]
    run(compose(overrides), folder=tmp_path)
    longer = [*overrides, "trainer.max_epochs=5"]
    with pytest.raises(ConfigError, match=r"extend=true trains on(.|\n)*trainer.max_epochs: 3 there, 5 here"):
        run(compose(longer), folder=tmp_path)
    run(compose([*longer, "extend=true"]), folder=tmp_path)
    rows = rows_of(tmp_path)
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert state(tmp_path)["global_step"] == 5 * 8
    assert result_of(tmp_path)["epochs"] == 5


def test_a_folder_of_another_run_is_refused_with_the_differences(tmp_path):
    run(compose(WINE), folder=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"another run; (.|\n)*norm._target_: .*Batch there, .*Layer here"):
        run(compose([*WINE, "norm=layer"]), folder=tmp_path)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_moved_folder_still_knows_its_best(tmp_path, monkeypatch):
    stopped(tmp_path / "old", WINE, RuntimeError(), epoch=2)
    best = state(tmp_path / "old", "best")["callbacks"]
    shutil.move(tmp_path / "old", tmp_path / "new")
    run(compose(WINE), folder=tmp_path / "new")
    rows = rows_of(tmp_path / "new")
    assert result_of(tmp_path / "new")["score"] == max(float(row["val/acc"]) for row in rows)
    assert best


def test_checkpoints_hold_tensors_and_plain_values_only(tmp_path):
    run(compose([*WINE, "callbacks=[early_stopping,lr_monitor]", "logger=tensorboard"]), folder=tmp_path)
    for which in ("best", "last"):
        found = state(tmp_path, which)  # weights_only=True refuses anything else
        assert "network.fc1.weight" in found["state_dict"]
        assert not any("_orig_mod" in key for key in found["state_dict"])


@pytest.mark.slow
def test_a_compiled_runs_checkpoint_loads_without_compile(tmp_path):
    run(compose([*WINE, "compile=true"]), folder=tmp_path / "compiled")
    from normlab.models.net import Net
    from normlab.norms.batch import Batch

    weights = state(tmp_path / "compiled")["state_dict"]
    network = Net(Batch(), (13,), 3)
    network.load_state_dict({key.removeprefix("network."): value for key, value in weights.items()})


def test_a_run_shorter_than_an_epoch_has_a_score(tmp_path):
    result = run(compose([*WINE, "trainer.max_steps=3"]), folder=tmp_path)
    assert result.score is not None
    assert state(tmp_path, "best")["global_step"] == 3


@pytest.mark.parametrize("action", rest_slow(["validate", "test"], lambda case: case[0] == "test"))
def test_actions_repeat_the_fits_figures(tmp_path, monkeypatch, action):
    monkeypatch.chdir(tmp_path)
    fitted = run(compose([*WINE, "name=a", "norm=group"]))
    before = (tmp_path / "outputs" / "a" / "result.json").read_text()
    again = run(compose([f"action={action}", "name=a"]))
    stage = {"validate": "val", "test": "test"}[action]
    assert again.metrics == {k: v for k, v in fitted.metrics.items() if k.startswith(stage)}
    assert (tmp_path / "outputs" / "a" / "result.json").read_text() == before
    assert result_of(tmp_path / "outputs" / "a" / action)["status"] == "finished"
    by_path = run(compose([f"action={action}", "ckpt=outputs/a/checkpoints/best.ckpt"]))
    assert by_path.metrics == again.metrics


def test_actions_take_the_folders_settings_and_what_is_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(compose([*WINE, "name=a", "model=custom_model", "model.hidden_units=7", "norm=layer", "optimizer.lr=0.5"]))
    config = compose(["action=test", "name=a", "data.batch_size=5", "ckpt=last"])
    assert config.model.hidden_units == 7
    assert config.norm._target_.endswith("Layer")
    assert (config.optimizer.lr, config.data.batch_size) == (0.5, 5)
    other = compose(["action=test", "name=a", "model=net"])
    assert "hidden_units" not in other.model


def test_testing_never_uses_untrained_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(compose([*WINE, "name=a"]))
    with pytest.raises(ConfigError, match="ckpt=missing: there is no file missing"):
        compose(["action=test", "name=a", "ckpt=missing"])
    with pytest.raises(ConfigError, match=r"belongs to another network:(.|\n)*network.fc1.weight is \(20, 13\) there"):
        run(compose(["action=test", "name=a", "data=iris"]))
    (tmp_path / "broken.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(ConfigError, match=r"broken.ckpt is no checkpoint"):
        run(compose(["action=test", "name=a", "ckpt=broken.ckpt"]))


def test_weights_of_another_network_name_every_difference(tmp_path):
    run(compose(WINE), folder=tmp_path)
    with pytest.raises(ConfigError, match=r"bias is missing(.|\n)*and 6 more"):
        load_weights(torch.nn.Linear(2, 2), tmp_path / "checkpoints" / "best.ckpt")


@pytest.mark.parametrize(
    ("losses", "place"),
    [
        ([0.5] * 4 + [1.0] * 20 + [1.0 - 0.1 * i for i in range(6)] + [0.2] + [0.19, 0.5, 2.0] + [4.0] * 6, 29),
        ([1.0] * 40, None),
        ([1.0 + 0.1 * i for i in range(40)], None),
        ([1.0, 0.9], None),
    ],
    ids=["falls after a flat start", "flat", "rises", "short"],
)
def test_the_suggested_rate_is_where_the_loss_falls_fastest(losses, place):
    assert steepest_fall(losses) == place


def test_a_part_that_cannot_be_imported_is_refused(tmp_path):
    for group, target in (("model", "normlab.models.nofile.No"), ("norm", "normlab.norms.batch.Nothing")):
        config = compose(WINE)
        config[group]["_target_"] = target
        with pytest.raises(ConfigError, match=rf"{group}._target_={target} cannot be"):
            run(config, folder=tmp_path / group)


def test_lr_find_draws_a_curve_and_suggests(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(compose(["action=lr_find", "name=a", "model=net", "data=breast_cancer"]))
    assert 1e-6 < result.metrics["lr"] < 10
    png = (tmp_path / "outputs" / "a" / "lr_find" / "lr_find.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert not list((tmp_path / "outputs").rglob(".lr_find_*"))
    run(compose([*WINE, "name=a"]))  # the folder still takes the fit


def test_a_batch_of_one_is_refused_before_training(tmp_path):
    with pytest.raises(ConfigError, match="last training batch holds 1 sample.*data.drop_last=true"):
        run(compose([*WINE, "data=iris", "data.batch_size=16"]), folder=tmp_path / "zero")
    assert result_of(tmp_path / "zero")["status"] == "refused"
    with pytest.raises(
        ConfigError, match="batches hold 1 sample, and that leaves bn1 one value per channel: raise data.batch_size"
    ):
        run(compose([*WINE, "data.batch_size=1"]), folder=tmp_path / "one")
    run(
        compose([*WINE, "data=iris", "data.batch_size=16", "data.drop_last=true"]), folder=tmp_path / "zero"
    )  # the remedy
    run(compose([*WINE, "data=iris", "data.batch_size=16", "norm=group"]), folder=tmp_path / "three")


def test_an_evaluation_batch_of_one_is_refused_where_its_statistics_are_used(tmp_path):
    wine = [*WINE, "data.batch_size=27", "data.drop_last=true"]  # 27 samples to validate, 36 to test
    run(compose([*wine, "norm=prediction_time"]), folder=tmp_path / "fits")
    for norm in (["norm=prediction_time"], ["norm.track_running_stats=false"]):
        with pytest.raises(ConfigError, match="evaluation batch holds 1 sample, and bn1 takes statistics of the batch"):
            run(compose([*wine, "data.batch_size=26", *norm]), folder=tmp_path / norm[0])
    run(compose([*wine, "data.batch_size=26"]), folder=tmp_path / "batch")


def test_two_processes_do_not_write_to_one_folder(tmp_path):
    with FileLock(tmp_path / ".lock"), pytest.raises(ConfigError, match="another process is writing"):
        run(compose(WINE), folder=tmp_path)


def test_the_table_keeps_rows_through_new_columns_and_resuming(tmp_path):
    table = MetricsTable(tmp_path / "metrics.csv", ["epoch", "a"])
    table.truncate(0)
    table.append({"epoch": 0, "a": 1})
    table.append({"epoch": 1, "a": 2, "b": 3})
    table.append({"epoch": 2, "b": 4})
    again = MetricsTable(tmp_path / "metrics.csv", ["epoch", "a"])
    again.truncate(2)
    again.append({"epoch": 2, "a": 5})
    assert (tmp_path / "metrics.csv").read_text() == "epoch,a,b\n0,1,\n1,2,3\n2,5,\n"


def test_own_datasets_and_data_modules_are_taken(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(64, 5)
    for name, y in (("classes", (x[:, 0] > 0).long()), ("target", x[:, :1] * 30 + 100)):
        datasets = [TensorDataset(x, y)] * 3
        result = run(compose([*WINE, "data.batch_size=16"]), folder=tmp_path / name, data=datasets)
        assert result.score is not None
        assert result.task.network.fc1.in_features == 5

    class Mine(LightningDataModule):
        def train_dataloader(self):
            return DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), 16)

        val_dataloader = train_dataloader

    result = run(compose(WINE), folder=tmp_path / "mine", data=Mine())
    assert result.score is not None
    assert not any(name.startswith("test/") for name in result.metrics)
    assert "Mine" in OmegaConf.load(tmp_path / "mine" / "config.yaml").data._target_


def test_overfit_learns_its_batch(tmp_path):
    overrides = ["model=custom_model", "data.size=8", "trainer=overfit", "logger=none", "trainer.max_epochs=40"]
    result = run(compose(overrides), folder=tmp_path)
    rows = rows_of(tmp_path)
    assert float(rows[-1]["train/acc"]) > 0.99
    assert rows[-1]["step"] == "40"
    assert result.score > 0.99


def test_a_run_that_ended_no_epoch_does_not_keep_its_name(tmp_path, monkeypatch):
    """Another configuration may take it, and finds nothing of it in what it writes."""
    stopped(tmp_path, WINE, RuntimeError("stop"), epoch=0)
    assert (tmp_path / "config.yaml").is_file()
    (tmp_path / "table.json").write_text("{}")
    other = [*WINE, "optimizer.lr=0.001", "data=iris"]
    assert run(compose(other), folder=tmp_path).score is not None
    assert len(json.loads((tmp_path / "environment.json").read_text())) == 1
    assert not (tmp_path / "table.json").exists()
    with pytest.raises(ConfigError, match="holds another run"):
        run(compose(WINE), folder=tmp_path)


@pytest.mark.parametrize("left", ["metrics.csv", "checkpoints"])
def test_a_run_that_has_ended_an_epoch_keeps_its_name(tmp_path, monkeypatch, left):
    """Also where a person has removed its checkpoints, or its table."""
    stopped(tmp_path, WINE, RuntimeError("stop"), epoch=1)
    if left == "metrics.csv":
        shutil.rmtree(tmp_path / "checkpoints")
    else:
        (tmp_path / "metrics.csv").unlink()
    with pytest.raises(ConfigError, match="holds another run"):
        run(compose([*WINE, "optimizer.lr=0.001"]), folder=tmp_path)
