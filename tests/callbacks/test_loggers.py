"""Loggers of a run that was killed and went on hold what those of one that never was hold: nothing twice, no gap."""

import csv
import json
import logging
import re
import time
from collections import Counter

import pytest
from helpers import warm
from helpers.cases import rest_slow
from helpers.dying import noting

from normlab import compose, run
from normlab.callbacks.loggers.noted import Note
from normlab.errors import ConfigError, DamagedError

WINE = ["model=net", "data=wine", "trainer.max_epochs=3", "data.batch_size=20", "callbacks=lr_monitor"]
WINE += ["callbacks.lr_monitor.logging_interval=step", "trainer.max_epochs=3"]  # 6 batches an epoch


def killed(overrides, folder, *moment):
    """Lets a run die in a process of its own, then waits: TensorBoard orders the files of a second by process."""
    done = warm.call("helpers.dying.run_to_death", overrides, str(folder), *moment).wait()
    assert done.returncode == 9, done.stderr
    time.sleep(1)


def events(folder):
    """How often TensorBoard shows each value of each step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    shown = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    names = set(shown.Tags()["scalars"]) - {"epoch"}  # it stands beside every other value
    return Counter((name, event.step, event.value) for name in names for event in shown.Scalars(name))


def cells(folder):
    rows = csv.DictReader((folder / "csv" / "metrics.csv").read_text().splitlines())
    return Counter(
        (name, row["step"], value)
        for row in rows
        for name, value in row.items()
        if value and name not in ("epoch", "step")
    )


MOMENTS = [("on_train_batch_start", 9), ("on_train_batch_end", 12), ("on_validation_end", 2), ("on_train_epoch_end", 2)]
MOMENTS += [("on_validation_batch_start", 3), ("after saving", 0), ("after saving", 1), ("on_test_start", 1)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(compose([*WINE, "logger=[tensorboard,csv]"]), folder=folder)
    return folder


@pytest.mark.parametrize("save_every", ["null", pytest.param("4steps", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "moment",
    rest_slow(((moment,) for moment in MOMENTS), lambda case: case[0] == MOMENTS[0]),
    ids=lambda moment: f"{moment[0]} {moment[1]}",
)
def test_files_hold_every_value_once(tmp_path, whole, moment, save_every):
    overrides = [*WINE, "logger=[tensorboard,csv]", f"save_every={save_every}"]
    killed(overrides, tmp_path, *moment)
    run(compose(overrides), folder=tmp_path)
    assert events(tmp_path) == events(whole)
    assert cells(tmp_path) == cells(whole)
    assert len(cells(whole)) > 20


def test_the_line_that_a_kill_has_left_unfinished_is_logged_again(tmp_path, whole):
    overrides = [*WINE, "logger=csv"]
    killed(overrides, tmp_path, "on_train_batch_end", 9)
    with (tmp_path / "csv" / "metrics.csv").open("a") as table:
        table.write("1,0.0")
    run(compose(overrides), folder=tmp_path)
    assert cells(tmp_path) == cells(whole)


@pytest.mark.filterwarnings("default")  # mlflow's are not ours to mend
@pytest.mark.parametrize("moment", [("on_train_batch_start", 9), ("on_train_epoch_end", 2), ("after saving", 1)])
def test_an_mlflow_run_goes_on(tmp_path, whole, moment):
    mlflow = pytest.importorskip("mlflow")
    database = f"sqlite:///{tmp_path}/mlflow.db"
    overrides = [*WINE, "logger=mlflow", f"logger.mlflow.tracking_uri={database}"]
    folder = tmp_path / "run"
    killed(overrides, folder, *moment)
    run(compose(overrides), folder=folder)
    client = mlflow.tracking.MlflowClient(database)
    (experiment,) = (each for each in client.search_experiments() if each.name == "normlab")
    (only,) = client.search_runs([experiment.experiment_id])
    names = set(only.data.metrics) - {"epoch"}
    history = [client.get_metric_history(only.info.run_id, name) for name in names]
    logged = Counter((value.key, value.step) for values in history for value in values)
    assert logged == Counter((name, step) for name, step, _ in events(whole))


@pytest.mark.filterwarnings("default")
def test_an_mlflow_run_that_is_elsewhere_is_said(tmp_path):
    pytest.importorskip("mlflow")
    one, other = ([*WINE, "logger=mlflow", f"logger.mlflow.tracking_uri=sqlite:///{tmp_path}/{x}.db"] for x in "ab")
    killed(one, tmp_path / "run", "on_train_epoch_end", 2)
    with pytest.raises(ConfigError, match=r"logger.mlflow.tracking_uri=sqlite:///.*/b.db does not have the run"):
        run(compose(other), folder=tmp_path / "run")


@pytest.mark.filterwarnings("default")
def test_a_wandb_run_goes_on(tmp_path, monkeypatch, whole):
    """What is handed to W&B is noted here: the files of an offline run are its own affair."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    overrides = [*WINE, "logger=wandb", "logger.wandb.offline=true"]
    folder, handed = tmp_path / "run", tmp_path / "handed.jsonl"
    moment = ("on_train_epoch_end", 2)
    done = warm.call("helpers.dying.run_to_death_noting", str(handed), overrides, str(folder), *moment).wait()
    assert done.returncode == 9, done.stderr
    monkeypatch.setattr(wandb.Run, "log", noting(wandb.Run.log, str(handed)))
    time.sleep(1)  # each start has a folder that is called by the second
    run(compose(overrides), folder=folder)
    starts = sorted(folder.glob("wandb/offline-run-*"))
    assert len(starts) == 2
    assert len({start.name.rpartition("-")[2] for start in starts}) == 1
    rows = list(map(json.loads, handed.read_text().splitlines()))
    logged = Counter((name, row["trainer/global_step"]) for row in rows for name in row)
    logged = {key: count for key, count in logged.items() if key[0] not in ("epoch", "trainer/global_step")}
    assert logged == Counter((name, step) for name, step, _ in events(whole))


@pytest.mark.parametrize("damaged", ["", '{"id": "1f', "[]"])
def test_a_damaged_note_of_a_service_is_named(tmp_path, damaged):
    file = tmp_path / "wandb_run.json"
    file.write_text(damaged)
    with pytest.raises(DamagedError, match=re.escape(str(file))):
        Note(file).read()
