"""`hydra/sweeper=grid`: which jobs run, in which folders, and a sweep that goes on."""

import json
import pickle
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers.cases import ROOT, rest_slow
from helpers.processes import train
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from normlab import compose, run
from normlab.config.sweep import check_sweep
from normlab.errors import ConfigError, SweepError
from normlab.folder import lock, writing
from normlab.folder.identity import config_hash
from normlab.sweeps.grid import GridSweeper
from normlab.sweeps.jobs import CheckedJobs

SMALL = ["model=net", "data=wine", "logger=none"]


class Stop(BaseException):
    """Stands for Ctrl-C: no failure of a job."""


class FakeLauncher:
    """Writes results without training. fails: the folders whose jobs do; stops: the one at which it stops."""

    def __init__(self, path, fails=(), stops=None):
        self.path, self.fails, self.stops, self.launched, self.batches = path, fails, stops, {}, []

    def launch(self, job_overrides, initial_job_idx):
        self.batches.append(len(job_overrides))
        return [self._run(overrides) for overrides in job_overrides]

    def _run(self, overrides):
        *typed, subdir = overrides
        number = int(subdir.removeprefix("hydra.sweep.subdir="))
        (self.path / str(number)).mkdir(exist_ok=True)
        if number == self.stops:
            raise Stop
        self.launched[number] = [line for line in typed if line not in SMALL]
        failed = number in self.fails
        config = compose(typed)
        result = {"overrides": typed, "config_hash": config_hash(config), "error": "Oh: no" if failed else None}
        result |= {"status": "failed" if failed else "finished", "score": 0.5}
        result |= {"score_name": "val/acc", "score_mode": "max"}
        writing.write_config(self.path / str(number), config)
        writing.write_result(self.path / str(number), result)
        job = JobReturn(status=JobStatus.FAILED if failed else JobStatus.COMPLETED)
        job.return_value = RuntimeError("no") if failed else 0.5
        return job


def sweep(path, *typed, size=None, **fake) -> FakeLauncher:
    """A sweep whose jobs are not run; gives what was launched, by folder."""
    sweeper = GridSweeper(size, None)
    sweeper.loader = CheckedJobs(check_sweep([*SMALL, *typed]).jobs)
    sweeper.settings = OmegaConf.create({"hydra": {"sweep": {"dir": str(path)}}})
    sweeper.engine = launcher = FakeLauncher(path, **fake)
    sweeper.sweep([*SMALL, *typed])
    return launcher


def states(path) -> dict[str, tuple[int, bytes]]:
    """What would change if a job of a sweep was touched."""
    files = sorted(path.glob("*/result.json"))
    return {file.parent.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def test_job_k_has_folder_k(tmp_path):
    launched = sweep(tmp_path, "norm=batch,group", "seed=range(1,3)").launched
    assert launched == {
        0: ["norm=batch", "seed=1"],
        1: ["norm=batch", "seed=2"],
        2: ["norm=group", "seed=1"],
        3: ["norm=group", "seed=2"],
    }


def test_the_same_command_runs_the_rest(tmp_path, capsys):
    with pytest.raises(Stop):
        sweep(tmp_path, "norm=batch,group", "seed=1,2,3", stops=2)
    before = states(tmp_path)
    capsys.readouterr()
    rest = sweep(tmp_path, "norm=batch,group", "seed=1,2,3").launched
    assert rest == {
        2: ["norm=batch", "seed=3"],
        3: ["norm=group", "seed=1"],
        4: ["norm=group", "seed=2"],
        5: ["norm=group", "seed=3"],
    }
    assert before.items() <= states(tmp_path).items()
    assert "2 of 6 jobs were finished before, 4 to run" in capsys.readouterr().out
    assert sweep(tmp_path, "norm=batch,group", "seed=1,2,3").launched == {}


def test_a_changed_command_adds_its_new_jobs_and_leaves_the_others_alone(tmp_path, capsys):
    sweep(tmp_path, "norm=batch,group", "seed=1,2")
    before = states(tmp_path)
    more = sweep(tmp_path, "norm=layer,batch", "seed=1,2,3").launched
    assert more == {
        4: ["norm=layer", "seed=1"],
        5: ["norm=layer", "seed=2"],
        6: ["norm=layer", "seed=3"],
        7: ["norm=batch", "seed=3"],
    }
    assert before.items() <= states(tmp_path).items()
    said = capsys.readouterr().out
    assert "2 of 6 jobs were finished before, 4 to run; 2 of other commands stay as they are" in said
    assert said.splitlines()[-1].startswith("6 jobs: 6 finished, best val/acc 0.5 ")


def test_how_a_job_is_typed_does_not_matter(tmp_path):
    sweep(tmp_path, "optimizer.lr=0.1,0.2")
    assert sweep(tmp_path, "optimizer.lr=2e-1,1e-1,0.3", "norm=batch", "trainer.accelerator=cpu").launched == {
        2: ["optimizer.lr=0.3", "norm=batch", "trainer.accelerator=cpu"]
    }


def test_a_failed_job_is_told_counts_and_is_tried_again_in_its_folder(tmp_path, capsys):
    with pytest.raises(SweepError, match=r"^2 of 4 jobs failed: \S+/1, \S+/3$"):
        sweep(tmp_path, "seed=1,2,3,4", fails=(1, 3))
    told = capsys.readouterr()
    assert told.err.count("job 1 (seed=2) failed: Oh: no; ") == 1
    assert told.out.splitlines()[-1].startswith("4 jobs: 2 finished, 2 failed, best val/acc 0.5 (mean of 2), ")
    with pytest.raises(SweepError, match="^1 of 4 jobs failed"):
        sweep(tmp_path, "seed=1,2,3,4", fails=(3,))
    assert sweep(tmp_path, "seed=1,2,3,4").launched == {3: ["seed=4"]}


def test_jobs_that_the_hash_does_not_tell_apart_are_told_apart(tmp_path):
    """Compiled or not, a run has the same numbers; who sweeps it wants both."""
    assert sweep(tmp_path, "compile=false,true", "seed=1,2").launched.keys() == {0, 1, 2, 3}
    assert sweep(tmp_path, "compile=true,false", "seed=2,3").launched == {
        4: ["compile=true", "seed=3"],
        5: ["compile=false", "seed=3"],
    }
    assert sweep(tmp_path, "compile=true", "seed=1,2,3").launched == {}
    assert sweep(tmp_path / "other", "compile=true", "seed=1").launched == {0: ["compile=true", "seed=1"]}
    assert sweep(tmp_path / "other", "compile=true,false", "seed=1").launched == {1: ["compile=false", "seed=1"]}


def test_longer_runs_extend_those_that_are_there(tmp_path):
    sweep(tmp_path, "seed=1,2", "trainer.max_epochs=2")
    longer = ["seed=2,3", "trainer.max_epochs=5", "extend=true"]
    assert sweep(tmp_path, *longer).launched == {
        1: ["seed=2", "trainer.max_epochs=5", "extend=true"],
        2: ["seed=3", "trainer.max_epochs=5", "extend=true"],
    }
    assert sweep(tmp_path, *longer).launched == {}


def test_the_folder_of_a_job_that_never_began_is_taken_and_one_of_something_else_is_not(tmp_path):
    (tmp_path / "0" / "checkpoints").mkdir(parents=True)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "notes.txt").touch()
    assert sweep(tmp_path, "seed=1,2").launched.keys() == {0, 2}


def test_so_many_jobs_are_launched_together(tmp_path):
    assert sweep(tmp_path / "a", "seed=range(0,5)", size=2).batches == [2, 2, 1]
    assert sweep(tmp_path / "b", "seed=range(0,5)").batches == [5]


@pytest.mark.parametrize(("file", "what"), [("study.db", "a search"), ("config.yaml", "a run")])
def test_a_folder_of_something_else_is_refused(file, what, tmp_path):
    (tmp_path / file).touch()
    with pytest.raises(ConfigError, match=f"holds {what}; choose another name="):
        sweep(tmp_path, "seed=1,2")
    assert [entry.name for entry in tmp_path.iterdir()] == [file]


def test_two_commands_do_not_share_a_folder(tmp_path):
    with lock.hold(tmp_path), pytest.raises(ConfigError, match="another process is writing to"):
        sweep(tmp_path, "seed=1,2")


REFUSED = [
    ("seed=1,2,1", "seed=1,2,1: 1 is there twice; list each value once"),
    ("optimizer.lr=0.1,1e-1", "optimizer.lr=0.1,1e-1: 0.1 is there twice"),
    ("optimizer.ler=0.1,0.2", "no key ler in optimizer; did you mean lr?"),
    ("hydra.sweeper.max_batch_size=0 seed=1,2", "hydra.sweeper.max_batch_size=0: expected a whole number of at"),
]


@pytest.mark.parametrize(("typed", "message"), REFUSED)
def test_what_is_refused_is_refused_before_the_first_job(typed, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        check_sweep([*SMALL, *typed.split(), "name=s"])


@pytest.mark.parametrize(("typed", "message"), rest_slow(REFUSED, lambda case: case in REFUSED[:1]))
def test_refused_before_the_first_job(typed, message, tmp_path):
    done = train("-m", *SMALL, *typed.split(), "name=s", cwd=tmp_path, check=2)
    assert done.stderr.startswith(f"refused: {message}")
    assert not list(tmp_path.iterdir())


def test_a_sweep_that_is_finished_says_so_without_importing_torch(tmp_path):
    """The results are those of a launcher that does not train, with the hashes of real configurations."""
    (tmp_path / "outputs").mkdir()
    sweep(tmp_path / "outputs" / "s", "seed=1,2")
    code = (
        "import sys; sys.argv = ['train.py', *sys.argv[1:]]\n"
        "from normlab.app import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code)\n"
        "print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, "-m", *SMALL, "seed=1,2", "name=s"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    first, second, *rest = done.stdout.splitlines()
    assert first == "outputs/s: 2 of 2 jobs were finished before"
    assert second.startswith("2 jobs: 2 finished, best val/acc 0.5 (mean of 2), ")
    assert rest[-2:] == ["0", "False"]


@pytest.mark.slow
def test_a_killed_sweep_ends_on_the_weights_of_one_that_was_not(tmp_path):
    command = [*SMALL, "trainer.max_epochs=60", "seed=1,2,3"]
    process = subprocess.Popen([sys.executable, str(ROOT / "train.py"), "-m", *command, "name=s"], cwd=tmp_path)
    path = tmp_path / "outputs" / "s"
    for _ in range(3600):
        rows = path / "1" / "metrics.csv"
        if rows.is_file() and len(rows.read_text().splitlines()) > 3:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    statuses = {number: json.loads(text)["status"] for number, (_, text) in states(path).items()}
    assert statuses == {"0": "finished", "1": "running"}
    first = states(path)["0"]

    train("-m", *command, "name=s", cwd=tmp_path)
    assert states(path)["0"] == first
    assert "resuming from" in (path / "1" / "train.log").read_text()
    task = OmegaConf.load(path / "multirun.yaml").hydra.overrides.task
    assert list(task) == [*command, "name=s"]
    for number, seed in enumerate((1, 2, 3)):
        whole, part = tmp_path / f"whole{seed}", path / str(number)
        run(compose([*command[:-1], f"seed={seed}"]), folder=whole)
        assert (part / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
        one, two = (torch.load(p / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for p in (whole, part))
        assert all(torch.equal(two[key], value) for key, value in one.items())
        results = [json.loads((p / "result.json").read_text()) for p in (whole, part)]
        assert results[0]["metrics"] == results[1]["metrics"]


def test_a_job_goes_to_another_process_without_the_others():
    """Of a laboratory each took its whole with it, which needed more of the processor than the jobs themselves."""
    few, many = (CheckedJobs(check_sweep([*SMALL, f"seed=range(0,{count})"]).jobs) for count in (2, 20))
    sent = pickle.dumps(many)
    assert len(many.known) == 20
    assert len(sent) == len(pickle.dumps(few))
    composed = pickle.loads(sent).load_sweep_config(check_sweep(SMALL).settings, [*SMALL, "seed=7"])
    alone = compose([*SMALL, "seed=7"])
    assert composed.seed == 7
    assert all(composed[part] == alone[part] for part in ("model", "norm", "data", "optimizer", "trainer"))
