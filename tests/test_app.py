"""The command line as a person types it."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
import torch
from helpers import warm
from helpers.cases import ROOT, WINE, rest_slow
from helpers.processes import start, train, wait_for_rows


def results(folder) -> dict[str, dict]:
    return {str(p.parent.relative_to(folder)): json.loads(p.read_text()) for p in folder.rglob("result.json")}


def test_a_refusal_is_one_message_and_leaves_nothing(tmp_path):
    done = train("trainer.max_epoch=3", cwd=tmp_path, check=2)
    assert done.stderr == "refused: no key max_epoch in trainer; did you mean max_epochs?\n"
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


def test_a_configuration_is_shown_of_one_job(tmp_path):
    done = train("-m", "norm=batch,group", "--cfg", "job", cwd=tmp_path, check=2)
    assert done.stderr == (
        "refused: -m with --cfg or --info: these show one job; leave out -m, and give each key one value\n"
    )
    assert not list(tmp_path.iterdir())


def test_a_refusal_after_building_is_one_message_and_is_recorded(tmp_path):
    done = train("data=wine", "name=a", cwd=tmp_path, check=2)
    assert done.stderr.startswith("refused: normlab.models.mynet.MyNet takes images")
    assert len(done.stderr.splitlines()) == 1
    (result,) = results(tmp_path / "outputs").values()
    assert (result["status"], result["error"]) == ("refused", done.stderr.removeprefix("refused: ").strip())


def test_a_sweep_has_a_folder_for_each_job(tmp_path):
    sweep = ["-m", "model=custom_model,net", "norm=batch,group", "seed=1", "data=wine", "trainer=debug", "name=s"]
    train(*sweep, "logger=none", cwd=tmp_path)
    found = results(tmp_path / "outputs" / "s")
    assert sorted(found) == [str(number) for number in range(4)]
    assert all(result["status"] == "finished" for result in found.values())
    assert len({result["config_hash"] for result in found.values()}) == 4
    assert found["1"]["overrides"][:3] == ["model=custom_model", "norm=group", "seed=1"]


@pytest.mark.slow
def test_a_failing_job_does_not_stop_a_sweep_but_shows_in_the_exit_code(tmp_path):
    done = train("-m", *WINE, "trainer=debug", "norm=instance,group", "name=s", cwd=tmp_path, check=1)
    found = results(tmp_path / "outputs" / "s")
    assert (found["0"]["status"], found["1"]["status"]) == ("refused", "finished")
    told, end = done.stderr.splitlines()
    assert told.startswith("job 0 (norm=instance) refused: norm=instance takes its statistics over space")
    assert told.endswith("; outputs/s/0/train.log")
    assert end == "1 of 2 jobs failed: outputs/s/0"
    assert "Traceback" in (tmp_path / "outputs" / "s" / "0" / "train.log").read_text()
    assert "\n2 jobs: 1 finished, 1 failed, best val/acc " in "\n" + done.stdout


@pytest.mark.slow
def test_two_runs_of_the_same_second_have_two_folders(tmp_path):
    both = [start(*WINE, "trainer=debug", cwd=tmp_path) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert len(results(tmp_path)) == 2


def test_ctrl_c_is_recorded_and_the_same_command_goes_on(tmp_path):
    command = [*WINE, "name=a", "trainer.max_epochs=3000"]
    process = warm.Forked(arguments=command, cwd=str(tmp_path))
    wait_for_rows(tmp_path / "outputs" / "a" / "metrics.csv", 3)
    os.kill(process.pid, signal.SIGINT)
    done = process.wait()
    assert done.returncode == 130
    assert re.fullmatch(
        r"interrupted; saved (in|after) .*: the same command with name=a goes on", done.stderr.splitlines()[-1]
    )
    result = results(tmp_path)["outputs/a"]
    assert (result["status"], result["error"]) == ("interrupted", "KeyboardInterrupt")
    assert result["epochs"] >= 2
    assert result["best"]["path"] == "checkpoints/best.ckpt"


@pytest.mark.slow
def test_a_killed_run_ends_on_the_weights_of_one_that_was_not(tmp_path):
    command = [*WINE, "trainer.max_epochs=150"]
    process = start(*command, "name=killed", cwd=tmp_path)
    wait_for_rows(tmp_path / "outputs" / "killed" / "metrics.csv", 3)
    process.kill()
    process.communicate()
    assert results(tmp_path)["outputs/killed"]["status"] == "running"
    again = train(*command, "name=killed", cwd=tmp_path)
    assert "resuming from" in again.stdout
    train(*command, "name=whole", cwd=tmp_path)
    outputs = tmp_path / "outputs"
    killed, whole = (
        torch.load(outputs / n / "checkpoints" / "last.ckpt", weights_only=True) for n in ("killed", "whole")
    )
    assert all(torch.equal(whole["state_dict"][key], killed["state_dict"][key]) for key in whole["state_dict"])
    assert (outputs / "killed" / "metrics.csv").read_text() == (outputs / "whole" / "metrics.csv").read_text()


@pytest.mark.slow
def test_an_action_takes_the_options_of_the_run(tmp_path):
    made = ["model=custom_model", "model.hidden_units=7", "norm=layer", "data=wine", "logger=none", "trainer=debug"]
    train(*made, "name=a", cwd=tmp_path)
    train("action=test", "name=a", "ckpt=last", "model.order=norm_act", cwd=tmp_path)
    found = results(tmp_path / "outputs" / "a")
    assert found["test"]["metrics"].keys() == {"test/loss", "test/acc", "test/f1"}
    assert found["."]["action"] == "fit"


@pytest.mark.slow
def test_a_run_is_replayed_from_its_config(tmp_path):
    train(*WINE, "norm=group", "norm.num_groups=4", "trainer.max_epochs=2", "name=a", cwd=tmp_path)
    config = (tmp_path / "outputs" / "a" / "config.yaml").read_text()
    command = config.splitlines()[0].removeprefix("# Replay: python train.py ").split()
    train(*command, cwd=tmp_path)
    rows = [(tmp_path / "outputs" / name / "metrics.csv").read_text() for name in ("a", "a-replay")]
    assert rows[0] == rows[1]


def test_an_uninstalled_checkout_says_what_to_do(tmp_path):
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "train.py")], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.strip().endswith("is not installed; in this folder: pip install -e .")


def test_a_failure_has_its_traceback_and_exit_code_1(tmp_path):
    done = train(*WINE, "norm=none", "optimizer.lr=1e30", "scheduler=none", cwd=tmp_path, check=1)
    assert "Traceback" in done.stderr
    assert "FloatingPointError: train/loss is" in done.stderr
    (result,) = results(tmp_path).values()
    assert result["status"] == "failed"
    assert result["error"].startswith("FloatingPointError")


FLAGS = [["--hydra-help"], ["--cfg", "job"], ["--info", "config"]]


@pytest.mark.parametrize("overrides", rest_slow(((flag,) for flag in FLAGS), lambda case: "--cfg" in case[0]))
def test_hydras_own_flags_work(overrides, tmp_path):
    train(*overrides, cwd=tmp_path)


def test_a_finished_run_is_told_without_importing_torch(tmp_path):
    command = [*WINE, "trainer.max_epochs=2", "name=a"]
    train(*command, cwd=tmp_path)
    code = (
        "import sys; sys.argv = ['train.py', *sys.argv[1:]]\n"
        "from normlab.app import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    again = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert again.stdout.splitlines()[0].startswith("outputs/a is finished: val/acc")
    assert again.stdout.split()[-2:] == ["0", "False"]
