"""`hydra/sweeper/pruner=`: trials that end early, as Optuna's own loop ends them, also when they were killed."""

import csv
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.cases import ROOT, rest_slow
from helpers.processes import train, wait_for_rows
from hydra.core.utils import JobReturn, JobStatus

from normlab import compose, run
from normlab.sweeps.pruning import Pruning

optuna = pytest.importorskip("optuna")
from helpers.searches import FakeLauncher, Stop, numbered, search, study, told, trials  # noqa: E402  # it needs optuna too

EPOCHS, TRIALS = 7, 12
MEDIAN = ("Median", {"n_startup_trials": 3, "n_warmup_steps": 1})
PRUNERS = [
    MEDIAN,
    ("Percentile", {"percentile": 25.0, "n_startup_trials": 2, "n_warmup_steps": 0}),
    ("SuccessiveHalving", {"min_resource": 1, "reduction_factor": 2}),
    ("Hyperband", {"min_resource": 1, "max_resource": EPOCHS, "reduction_factor": 2}),
]


def curves() -> list[list[float]]:
    """The score of each trial at each epoch: some rise higher than others, and none steadily."""
    random = np.random.default_rng(0)
    tops, noise = random.uniform(0.3, 1, TRIALS), random.normal(0, 0.03, (TRIALS, EPOCHS))
    rising = 1 - np.exp(-np.arange(1, EPOCHS + 1) / random.uniform(1, 4, TRIALS)[:, None])
    return (tops[:, None] * rising + noise).tolist()


class Curves(FakeLauncher):
    """Runs the callback along known curves. ends_at: the trial, epoch and place at which it is killed, once."""

    def __init__(self, ends_at=None):
        super().__init__()
        self.ends_at, self.saved, self.trained = ends_at, {}, []

    def result(self, number, values):
        record = SimpleNamespace(folder=self.path / str(number), score="val/acc", validated={})
        trainer = SimpleNamespace(
            is_global_zero=True,
            strategy=SimpleNamespace(broadcast=lambda value: value),
            should_stop=False,
            current_epoch=self.saved.get(number, 0),
            max_epochs=EPOCHS,
            global_step=0,
            max_steps=-1,
        )
        callback = Pruning(record)
        callback.on_train_start(trainer, None)
        while not trainer.should_stop and trainer.current_epoch < EPOCHS:
            record.validated = {"val/acc": curves()[number][trainer.current_epoch]}
            callback.on_train_epoch_end(trainer, None)
            self._may_end(number, trainer.current_epoch, "before it is saved")
            self.trained.append((number, trainer.current_epoch))
            self.saved[number] = trainer.current_epoch + 1
            self._may_end(number, trainer.current_epoch, "saved")
            trainer.current_epoch += 1
        score = max(curves()[number][: trainer.current_epoch])
        return {"status": "pruned" if callback.pruned else "finished", "score": score, "seconds": 1.0, "parameters": 1}

    def _may_end(self, *place):
        if place == self.ends_at:
            self.ends_at = None
            raise Stop


def reference(pruner) -> list[tuple[str, dict[int, float]]]:
    """What Optuna's own loop makes of the same curves."""

    def objective(trial):
        curve = curves()[trial.number]
        for epoch, value in enumerate(curve):
            trial.report(value, epoch)
            if epoch + 1 < EPOCHS and trial.should_prune():
                raise optuna.TrialPruned
        return max(curve)

    made = getattr(optuna.pruners, f"{pruner[0]}Pruner")(**pruner[1])
    found = optuna.create_study(study_name="study", direction="maximize", pruner=made)
    found.optimize(objective, n_trials=TRIALS)
    return ended(found)


def ended(found) -> list[tuple[str, dict[int, float]]]:
    return [(trial.state.name, trial.intermediate_values) for trial in found.trials]


@pytest.mark.slow
@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda pruner: pruner[0])
def test_trials_end_where_optunas_own_loop_ends_them(pruner, tmp_path):
    wanted = reference(pruner)
    assert ended(search(tmp_path, Curves(), pruner=pruner, n_trials=TRIALS)) == wanted
    assert 3 <= sum(state == "PRUNED" for state, _ in wanted) < TRIALS


@pytest.mark.parametrize("place", rest_slow(["before it is saved", "saved"], lambda case: case == ("saved",)))
@pytest.mark.parametrize(
    ("pruner", "last"),
    [pytest.param(MEDIAN, False, marks=pytest.mark.slow), (PRUNERS[2], True)],
    ids=["median", "halving"],
)
def test_a_killed_trial_ends_as_if_it_had_not_been(pruner, last, place, tmp_path):
    """In the middle, or where it was to be pruned, which successive halving says once only."""
    wanted = reference(pruner)
    number = next(n for n, (state, values) in enumerate(wanted) if state == "PRUNED" and len(values) > 2)
    epochs = len(wanted[number][1])
    launcher = Curves(ends_at=(number, epochs - 1 if last else epochs - 2, place))
    with pytest.raises(Stop):
        search(tmp_path, launcher, pruner=pruner, n_trials=TRIALS)
    assert ended(search(tmp_path, launcher, pruner=pruner, n_trials=TRIALS)) == wanted
    assert [epoch for trial, epoch in launcher.trained if trial == number] == list(range(epochs))


def test_a_pruned_trial_is_left_alone_and_counts(tmp_path):
    whole = search(tmp_path, Curves(), pruner=MEDIAN, n_trials=TRIALS)
    again = Curves()
    assert trials(search(tmp_path, again, pruner=MEDIAN, n_trials=TRIALS)) == trials(whole)
    assert again.launched == []


def test_without_a_pruner_a_job_that_goes_on_is_not_pruned(tmp_path):
    """It could have been pruned before the sweep was stopped."""
    launcher = Curves(ends_at=(0, 2, "saved"))
    with pytest.raises(Stop):
        search(tmp_path, launcher, pruner=MEDIAN, n_trials=1)
    assert (tmp_path / "0" / "trial.json").is_file()
    search(tmp_path, FakeLauncher(), n_trials=1)
    assert not (tmp_path / "0" / "trial.json").exists()


class Training(FakeLauncher):
    """Trains networks in this process."""

    def launch(self, job_overrides, initial_job_idx):
        returned = []
        for number, overrides in numbered(job_overrides).items():
            run(compose(overrides), folder=self.path / str(number))
            returned.append(JobReturn(status=JobStatus.COMPLETED))
        return returned


WINE = ["model=net", "data=wine", "logger=none", f"trainer.max_epochs={EPOCHS}", "scheduler=none"]
HALF_HOPELESS = [*WINE, "optimizer.lr=tag(log,interval(0.0000001,1))"]


def rows(path) -> list[dict[str, str]]:
    return list(csv.DictReader((path / "metrics.csv").read_text().splitlines()))


@pytest.fixture(scope="module")
def searches(tmp_path_factory):
    """The folders of one search with and one without a pruner."""
    folders = [tmp_path_factory.mktemp(name) for name in ("pruned", "whole")]
    for path, pruner in zip(folders, (MEDIAN, ("Nop", {})), strict=True):
        search(path, Training(), HALF_HOPELESS, pruner=pruner, n_trials=TRIALS)
    return folders


@pytest.mark.slow
def test_hopeless_trials_end_early_and_the_best_is_the_same(searches):
    pruned, whole = searches
    found, unpruned = study(pruned), study(whole)
    assert [trial.params for trial in found.trials] == [trial.params for trial in unpruned.trials]
    assert (found.best_trial.number, found.best_value) == (unpruned.best_trial.number, unpruned.best_value)
    ends = {
        trial.number: len(rows(pruned / str(trial.number))) for trial in found.trials if trial.state.name == "PRUNED"
    }
    assert len(ends) >= 3
    assert all(epochs < EPOCHS for epochs in ends.values())
    for trial in found.trials:
        own = rows(pruned / str(trial.number))
        assert own == rows(whole / str(trial.number))[: len(own)]
        assert trial.intermediate_values == {int(row["epoch"]): float(row["val/acc"]) for row in own}
        result = told(pruned / str(trial.number))
        last = torch.load(pruned / str(trial.number) / "checkpoints" / "last.ckpt", weights_only=True)
        assert result["status"] == ("pruned" if trial.number in ends else "finished")
        assert result["epochs"] == len(own) == last["epoch"] + 1
        assert result["score"] == max(trial.intermediate_values.values())
        assert ("test/acc" in result["metrics"]) == (trial.number not in ends)


@pytest.mark.slow
def test_a_pruned_run_is_left_alone_or_trained_to_its_end(searches, capsys):
    pruned, whole = searches
    trial = next(trial for trial in study(pruned).trials if trial.state.name == "PRUNED")
    own, unpruned = pruned / str(trial.number), whole / str(trial.number)
    typed = [*WINE, f"optimizer.lr={trial.params['optimizer.lr']}"]
    again = run(compose(typed), folder=own)
    assert f"was pruned after {len(trial.intermediate_values)} epochs: val/acc" in capsys.readouterr().out
    assert again.score == told(own)["score"]
    run(compose([*typed, "extend=true"]), folder=own)
    assert rows(own) == rows(unpruned)
    assert told(own) | {"seconds": 0, "overrides": []} == told(unpruned) | {"seconds": 0, "overrides": []}
    assert study(pruned).trials[trial.number].state.name == "PRUNED"


def test_the_hash_of_a_run_is_that_without_a_pruner(tmp_path):
    for name, pruner in (("pruned", MEDIAN), ("whole", ("Nop", {}))):
        (tmp_path / name).mkdir()
        search(tmp_path / name, Training(), [*HALF_HOPELESS, "trainer=debug"], pruner=pruner, n_trials=1)
    assert told(tmp_path / "pruned" / "0")["config_hash"] == told(tmp_path / "whole" / "0")["config_hash"]


SLOW = ["-m", "hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "hydra/sweeper/pruner=median", "name=s", *WINE]
SECOND_IS_HOPELESS = [*SLOW, "optimizer.lr=0.1,0.0000001", "hydra.sweeper.pruner.n_startup_trials=1"]


@pytest.mark.slow
def test_a_killed_command_goes_on_with_its_trial(tmp_path):
    """Killed with -9 while the hopeless trial trains; reports, rows and seconds go on."""
    sweep = tmp_path / "outputs" / "s"
    command = [*SECOND_IS_HOPELESS, "hydra.sweeper.pruner.n_warmup_steps=30", "trainer.max_epochs=40"]
    command += ["data.batch_size=4"]  # many steps an epoch leave time to kill it
    process = subprocess.Popen([sys.executable, str(ROOT / "train.py"), *command], cwd=tmp_path)
    wait_for_rows(sweep / "1" / "metrics.csv", 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = len(rows(sweep / "1"))
    assert killed < 30
    assert study(sweep).trials[1].state.name == "RUNNING"
    before = (sweep / "0" / "result.json").read_text()
    done = train(*command, cwd=tmp_path)
    assert "pruned after 31 epochs, and not tested" in (sweep / "1" / "train.log").read_text()
    assert "best of 2 jobs, 1 pruned: 0, score" in done.stdout
    assert before == (sweep / "0" / "result.json").read_text()
    assert [row["epoch"] for row in rows(sweep / "1")] == [str(epoch) for epoch in range(31)]
    trial = study(sweep).trials[1]
    assert (trial.state.name, sorted(trial.intermediate_values)) == ("PRUNED", list(range(31)))


@pytest.mark.slow
def test_two_processes_of_a_job_stop_together(tmp_path):
    train(*SECOND_IS_HOPELESS, "trainer=ddp_cpu", f"trainer.max_epochs={EPOCHS}", "data.batch_size=4", cwd=tmp_path)
    sweep = tmp_path / "outputs" / "s"
    found = study(sweep).trials
    assert [trial.state.name for trial in found] == ["COMPLETE", "PRUNED"]
    result = told(sweep / "1")
    assert (result["status"], result["world_size"]) == ("pruned", 2)
    assert result["epochs"] == len(rows(sweep / "1")) == len(found[1].intermediate_values) < EPOCHS


@pytest.mark.slow
def test_jobs_of_several_processes_write_one_study_at_once(tmp_path):
    """Successive halving looks at trials that are running: of four launched together, some end early."""
    pytest.importorskip("submitit")
    command = [*SLOW, "hydra/launcher=submitit_local", "hydra/sweeper/pruner=successive_halving"]
    command = [line for line in command if line != "hydra/sweeper/pruner=median"]
    train(*command, "hydra.sweeper.n_jobs=4", "optimizer.lr=0.1,0.05,0.0000001,0.0000002", cwd=tmp_path)
    sweep = tmp_path / "outputs" / "s"
    for trial in study(sweep).trials:
        own = rows(sweep / str(trial.number))
        assert trial.intermediate_values == {int(row["epoch"]): float(row["val/acc"]) for row in own}
        assert (
            told(sweep / str(trial.number))["status"] == {"COMPLETE": "finished", "PRUNED": "pruned"}[trial.state.name]
        )
