"""A real SLURM of two nodes on this machine: one run of two processes, a node each, and sweeps with a job each.

pytest -m slurm, as root, after: apt-get install -y --no-install-recommends slurm-wlm munge
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from helpers.cases import ROOT
from helpers.fair_sweeps import assert_same_fair_sweep
from helpers.folders import assert_same_weights, result_of
from helpers.processes import start, train
from omegaconf import OmegaConf

from normlab import compose, run

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "sinfo", "squeue")
MISSING = [program for program in PROGRAMS if shutil.which(program) is None]
WINE = ["model=net", "data=wine", "logger=none", "trainer.max_epochs=3", "trainer.accelerator=cpu"]

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (apt-get install slurm-wlm munge)"),
    pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="SLURM's daemons here run as root"),
]

CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=5
MpiDefault=none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmctldPort={ports[0]}
NodeName=n1 NodeAddr=127.0.0.1 NodeHostname={host} Port={ports[1]} CPUs=2
NodeName=n2 NodeAddr=127.0.0.1 NodeHostname={host} Port={ports[2]} CPUs=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=all Nodes=n1,n2 Default=YES State=UP PriorityTier=1 GraceTime=30
PartitionName=first Nodes=n1,n2 State=UP PriorityTier=2
"""

# sacct, which tells submitit how jobs ended, asks a database that this cluster does not have; this asks slurmctld
SACCT = """\
#!/usr/bin/env python3
import re, subprocess, sys
print("JobID|State|NodeList")
for job in sys.argv[sys.argv.index("-j") + 1 :: 2]:
    told = subprocess.run(["scontrol", "-o", "show", "job", job], capture_output=True, text=True).stdout
    for line in told.splitlines():
        found = dict(re.findall(r"(\\w+)=(\\S*)", line))
        task = found.get("ArrayTaskId")
        task = task if task is None or task.isdigit() else f"[{task}]"
        number = found["JobId"] if task is None else found["ArrayJobId"] + "_" + task
        print(number, found["JobState"], found["NodeList"], sep="|")
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[dict[str, str]]:
    """The environment in which SLURM's commands reach a cluster of two nodes that lives in a temporary folder."""
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(folder=folder, host=socket.gethostname().split(".")[0], ports=free_ports(3)))
    files = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munge.pid", "seed-file": "munge.seed"}
    munge = ["munged", "--foreground", "--force", f"--log-file={folder}/munge.log"]
    environment = os.environ | {"SLURM_CONF": str(config), "MASTER_ADDR": "127.0.0.1"}
    (folder / "sacct").write_text(SACCT)
    (folder / "sacct").chmod(0o755)
    environment["PATH"] = f"{folder}:{Path(sys.executable).parent}:{environment['PATH']}"
    with ExitStack() as daemons:
        daemons.enter_context(daemon([*munge, *(f"--{key}={folder / name}" for key, name in files.items())]))
        wait(lambda: (folder / "munge.socket").exists(), "munged gave no socket")
        daemons.enter_context(daemon(["slurmctld", "-D", "-f", str(config)], environment))
        for node in ("n1", "n2"):
            daemons.enter_context(daemon(["slurmd", "-D", "-N", node, "-f", str(config)], environment))
        wait(lambda: ask("sinfo", "-h", "-o", "%D %t", env=environment) == "2 idle", f"no two nodes: {folder}")
        yield environment
        # a sweep has its results before SLURM has seen its jobs end, and without daemons they never would
        wait(lambda: ask("squeue", "-h", env=environment) == "", "jobs are left")


@contextmanager
def daemon(command: list[str], environment: dict[str, str] | None = None) -> Iterator[None]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=environment, **quiet)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


def free_ports(number: int) -> list[int]:
    with ExitStack() as sockets:
        held = [sockets.enter_context(socket.socket()) for _ in range(number)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]


def ask(*command: str, env: dict[str, str]) -> str:
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False).stdout.strip()


def start_soon(job: str, *changes: str, env: dict[str, str]) -> None:
    """Lets a requeued job start in seconds, not minutes; SLURM refuses one that starts in the second of its requeue."""
    assert ask("scontrol", "update", f"JobId={job}", "StartTime=now+4seconds", *changes, env=env) == ""


def wait(condition, message: str, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, message
        time.sleep(0.1)


def submit(*arguments: str, cwd: Path, env: dict[str, str], code: int = 0) -> tuple[str, str]:
    """Runs scripts/train.sbatch where a person would; gives the job's number and messages, asserts its exit code."""
    if not (cwd / "train.py").exists():
        (cwd / "train.py").symlink_to(ROOT / "train.py")
    command = ["sbatch", "--wait", "--parsable", "--time=5", "--cpus-per-task=1"]
    command += [str(ROOT / "scripts" / "train.sbatch"), *arguments]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=180, check=False)
    job = done.stdout.strip()
    said = (cwd / f"slurm-{job}.out").read_text()
    assert done.returncode == code, done.stderr + said
    return job, said


def test_two_nodes_make_one_folder_called_as_the_job_with_the_weights_of_ddp_cpu(tmp_path, slurm):
    job, said = submit(*WINE, cwd=tmp_path, env=slurm)
    assert said.count(f"383 parameters, on 2 processes, cpu, in outputs/{job}") == 1
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == [job]
    folder = tmp_path / "outputs" / job
    made = {path.name for path in folder.iterdir()} - {".lock"}
    texts = {f"{name}.json" for name in ("data", "environment", "fingerprint", "result")}
    texts |= {"config.yaml", "metrics.csv", "train.log"}
    assert made == {*texts, "checkpoints"}
    result = json.loads((folder / "result.json").read_text())
    assert (result["status"], result["world_size"], result["epochs"]) == ("finished", 2, 3)
    started = run(compose([*WINE, "trainer=ddp_cpu"]), folder=tmp_path / "started")
    assert_same_weights(folder, tmp_path / "started")
    assert (result["metrics"], result["score"]) == (started.metrics, started.score)


@pytest.mark.parametrize("how", ["a warning", "the time limit", "preempted", "cancelled"])
def test_a_job_that_slurm_asks_to_end_goes_on_within_its_epoch(how, tmp_path, slurm):
    """A warning is what sbatch --signal sends ahead of a limit; at the limit itself SLURM sends SIGTERM, then kills.

    A job that another takes the nodes of gets SIGTERM, and is killed after the partition's time of grace.
    """
    (tmp_path / "train.py").symlink_to(ROOT / "train.py")
    command = ["sbatch", "--parsable", "--time=1" if how == "the time limit" else "--time=5", "--cpus-per-task=1"]
    command += [] if how == "a warning" else ["--signal=TERM@0"]
    typed = [*WINE, "data.batch_size=4", f"trainer.max_epochs={4000 if how == 'the time limit' else 40}"]
    script = [str(ROOT / "scripts" / "train.sbatch"), *typed, "name=s"]
    done = subprocess.run([*command, *script], cwd=tmp_path, env=slurm, capture_output=True, text=True, check=True)
    job, folder = done.stdout.strip(), tmp_path / "outputs" / "s"
    wait(lambda: (folder / "metrics.csv").is_file(), "the job never trained", 90)
    if how == "preempted":
        ask("sbatch", "--partition=first", "--nodes=2", "--exclusive", "--wrap=sleep 5", env=slurm)
    elif how != "the time limit":
        subprocess.run(["scancel", *(["--signal=TERM"] if how == "a warning" else []), job], env=slurm, check=True)
    wait(lambda: result_of(folder)["status"] == "interrupted", "the job was not interrupted", 120)
    came = result_of(folder)
    state = f"JobState={'CANCELLED' if how == 'cancelled' else 'PENDING'}"
    wait(lambda: state in ask("scontrol", "show", "job", "-o", job, env=slurm), f"no {state}", 60)
    if how == "cancelled":
        return
    start_soon(job, "TimeLimit=6", env=slurm)
    if how == "the time limit":
        wait(lambda: result_of(folder)["status"] == "running", "the job never went on", 60)
        ask("scancel", job, env=slurm)
        return
    wait(lambda: result_of(folder)["status"] == "finished", "the job never finished", 180)
    log = (folder / "train.log").read_text()
    if came["batches"]:
        assert f"within_epoch.ckpt, epoch {came['epochs'] + 1}, after batch {came['batches']} of" in log
    else:
        assert "last.ckpt, after its last finished epoch" in log
    assert f"job {job} is back in its queue" in (tmp_path / f"slurm-{job}.out").read_text()
    whole = run(compose([*typed, "trainer=ddp_cpu"]), folder=tmp_path / "whole")
    assert result_of(folder)["metrics"] == whole.metrics
    assert_same_weights(folder, tmp_path / "whole")


def test_refusals_are_said_once_and_end_the_job(tmp_path, slurm):
    _, said = submit(*WINE, "trainer.num_nodes=3", cwd=tmp_path, env=slurm, code=2)
    assert said.count("refused: trainer.devices=auto, trainer.num_nodes=3: srun started 1 on each of 2") == 1
    nameless = {key: value for key, value in slurm.items() if key != "MASTER_ADDR"}
    _, said = submit(*WINE, cwd=tmp_path, env=nameless, code=2)
    assert said.count("refused: node n1 has no address") == 1
    assert "set MASTER_ADDR" in said


def test_a_sweep_inside_of_a_job_is_refused(tmp_path, slurm):
    command = ["srun", "-N2", "--time=2", sys.executable, str(ROOT / "train.py"), "-m", *WINE, "seed=1,2"]
    done = subprocess.run(command, cwd=tmp_path, env=slurm, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.count("refused: -m under srun: launchers do that job") == 1
    assert not list(tmp_path.iterdir())


@pytest.fixture
def login(slurm, monkeypatch) -> list[str]:
    """Makes this process one on a cluster's login node; what a sweep of short jobs has typed there."""
    pytest.importorskip("submitit")
    for key, value in slurm.items():
        monkeypatch.setenv(key, value)
    return ["-m", "hydra/launcher=slurm", "hydra.launcher.timeout_min=4", "hydra.launcher.cpus_per_task=1"]


@pytest.fixture
def launched(tmp_path, login):
    """Sweeps to their end; gives the folder and what was said."""

    def go(*overrides: str, code: int = 0) -> tuple[Path, str]:
        done = train(*login, *WINE, *overrides, "name=s", cwd=tmp_path, check=code)
        return tmp_path / "outputs" / "s", done.stderr

    return go


def assert_as_here(job: Path, *overrides: str) -> None:
    """A job of a sweep is the run of two processes that this machine makes with the same values."""
    here = run(compose([*WINE, "trainer=ddp_cpu", *overrides]), folder=job.with_name(f"here{job.name}"))
    result = json.loads((job / "result.json").read_text())
    assert set(overrides) <= set(result["overrides"])
    assert (result["world_size"], result["metrics"], result["score"]) == (2, here.metrics, here.score)
    assert_same_weights(job, here.folder)


def test_a_sweep_of_jobs_of_two_nodes(launched):
    sweep, _ = launched("trainer=slurm", "trainer.accelerator=cpu", "hydra.launcher.nodes=2", "optimizer.lr=0.01,0.1")
    report = {"report.html", "summary.csv", "summary.md"}
    assert {path.name for path in sweep.iterdir()} - report == {".lock", ".submitit", "0", "1", "multirun.yaml"}
    for number, rate in enumerate((0.01, 0.1)):
        assert OmegaConf.load(sweep / str(number) / "config.yaml").optimizer.lr == rate
        assert_as_here(sweep / str(number), f"optimizer.lr={rate}")


def test_a_search_of_jobs_that_start_two_processes(launched):
    optuna = pytest.importorskip("optuna")
    search = ["hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=2"]
    sweep, _ = launched(*search, "hydra.sweeper.n_jobs=2", "trainer=ddp_cpu", "optimizer.lr=interval(0.01,0.1)")
    study = optuna.load_study(study_name="study", storage=f"sqlite:///{sweep / 'study.db'}")
    assert len({trial.params["optimizer.lr"] for trial in study.trials}) == len(study.trials) == 2
    for trial in study.trials:
        assert trial.value == json.loads((sweep / str(trial.number) / "result.json").read_text())["score"]
        assert_as_here(sweep / str(trial.number), f"optimizer.lr={trial.params['optimizer.lr']}")


def test_a_fair_sweep_of_jobs(launched, tmp_path):
    typed = ["sweep=fair", "trainer=cpu", "norm=batch,group", "fair.trials=2", "fair.seeds=2"]
    sweep, _ = launched(*typed)
    train("-m", *WINE, *typed, "name=here", cwd=tmp_path)
    assert_same_fair_sweep(sweep, tmp_path / "outputs" / "here")


def test_a_cancelled_job_costs_no_other_and_the_same_command_goes_on(tmp_path, slurm, login):
    typed = [*login, *WINE[:-2], "trainer=cpu", "trainer.max_epochs=300", "seed=1,2", "name=s"]
    command = [sys.executable, str(ROOT / "train.py"), *typed]
    sweep = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    trained = tmp_path / "outputs" / "s" / "1" / "metrics.csv"
    wait(lambda: trained.is_file() and len(trained.read_text().splitlines()) > 2, "job 1 never trained", 120)
    (job,) = {line.partition("_")[0] for line in ask("squeue", "-h", "-o", "%i", env=slurm).split()}
    subprocess.run(["scancel", f"{job}_1"], env=slurm, check=True)
    _, errors = sweep.communicate(timeout=240)
    assert (sweep.returncode, "Traceback" in errors) == (1, False), errors
    assert "job 1 (seed=2) failed: " in errors
    # the script in sacct's place says RUNNING or COMPLETING while the job's processes leave
    ended = rf"slurm job {job}_1 ended without a result, in state [A-Z]+; see outputs/s/.submitit/{job}_1/"
    assert re.search(ended, errors)
    results = [json.loads((trained.parents[1] / number / "result.json").read_text()) for number in ("0", "1")]
    assert [result["status"] for result in results] == ["finished", "interrupted"]
    train(*typed, cwd=tmp_path)
    assert json.loads((trained.parent / "result.json").read_text())["status"] == "finished"
    assert "resuming from" in (trained.parent / "train.log").read_text()


def test_a_job_that_is_warned_goes_on_by_itself(tmp_path, slurm, login):
    """submitit has SLURM send SIGUSR2 ahead of the time limit, and puts the job back into the queue."""
    typed = [*login, *WINE[:-2], "trainer=cpu", "trainer.max_epochs=100", "data.batch_size=4", "seed=1,2", "name=s"]
    sweep = start(*typed, "hydra.launcher.max_num_timeout=1", cwd=tmp_path)
    folder = tmp_path / "outputs" / "s" / "1"
    wait(lambda: (folder / "metrics.csv").is_file(), "job 1 never trained", 120)
    (job,) = {line.partition("_")[0] for line in ask("squeue", "-h", "-o", "%i", env=slurm).split()}
    subprocess.run(["scancel", "--signal=USR2", f"{job}_1"], env=slurm, check=True)
    wait(lambda: result_of(folder)["status"] == "interrupted", "the job was not interrupted", 60)
    wait(lambda: "PENDING" in ask("scontrol", "show", "job", "-o", f"{job}_1", env=slurm), "it is not in the queue", 60)
    start_soon(f"{job}_1", env=slurm)
    _, errors = sweep.communicate(timeout=240)
    assert sweep.returncode == 0, errors
    assert "resuming from outputs/s/1/checkpoints/" in (folder / "train.log").read_text()
    whole = run(compose([*WINE, "trainer=cpu", *typed[-4:-2], "seed=2"]), folder=tmp_path / "whole")
    assert result_of(folder)["metrics"] == whole.metrics


def test_a_job_that_is_refused_is_told_to_who_started_the_sweep(launched):
    sweep, said = launched("trainer=cpu", "norm=instance,batch", code=1)
    assert "refused: norm=instance takes its statistics over space" in said
    assert "Traceback" not in said
    results = [json.loads((sweep / job / "result.json").read_text())["status"] for job in ("0", "1")]
    assert results == ["refused", "finished"]
