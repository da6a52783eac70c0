"""Progress of a sweep: what is told of its jobs, when, and how often."""

import json
import os
import pty
import subprocess
import sys
import time

import pytest
from helpers.cases import ROOT
from helpers.processes import wait_for_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from normlab.sweeps import watch
from normlab.sweeps.pace import Pace
from normlab.sweeps.watch import Watch, duration

RESULT = {"score": 0.5, "score_name": "val/acc", "score_mode": "max", "error": None}


def job(path, number: int, status: str, *overrides: str, **changes) -> None:
    """A job's result as it stands now."""
    folder = path / str(number)
    folder.mkdir(exist_ok=True)
    part = folder / "part"
    part.write_text(json.dumps({**RESULT, "status": status, "overrides": list(overrides), **changes}))
    part.replace(folder / "result.json")


def logged(path, number: int, line: str) -> None:
    with (path / str(number) / "train.log").open("a") as log:
        log.write(f"2026-11-21 12:00:00,123 {line}\n")


def wait_for(capsys, text: str) -> str:
    said = ""
    for _ in range(600):
        told = capsys.readouterr()
        said += told.out + told.err
        if text in said:
            return said
        time.sleep(0.01)
    raise AssertionError(f"{text} was never told, but {said}")


@pytest.fixture
def at_once(monkeypatch):
    """Looks all the time, and tells each change."""
    monkeypatch.setattr(watch, "LOOK", 0.01)
    monkeypatch.setattr(watch, "LINE", 0.0)


def test_lines_where_there_is_no_terminal(tmp_path, capsys, at_once):
    with Watch(tmp_path, 4, ["norm", "seed"]):
        job(tmp_path, 0, "running", "model=net", "norm=batch", "seed=1")
        job(tmp_path, 1, "running", "model=net", "norm=batch", "seed=2")
        job(tmp_path, 0, "finished", "model=net", "norm=batch", "seed=1")
        assert "1/4 done, 1 running, 0 s left, best val/acc 0.5 norm=batch seed=1\n" in wait_for(capsys, "1/4")
        job(tmp_path, 1, "finished", "model=net", "norm=batch", "seed=2", score=0.75)
        wait_for(capsys, "2/4 done, 0 s left, best val/acc 0.625 norm=batch (mean of 2)\n")
        job(tmp_path, 2, "failed", "norm=ghost", "seed=1", error="ValueError: a\nb")
        said = wait_for(capsys, "2/4 done, 1 failed")
        assert f"job 2 (norm=ghost seed=1) failed: ValueError: a; {tmp_path}/2/train.log\n" in said
        job(tmp_path, 3, "pruned", "norm=ghost", "seed=2", score=0.9)
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == (
        f"4 jobs: 2 finished, 1 pruned, 1 failed, best val/acc 0.625 norm=batch (mean of 2), 0 s, {tmp_path}"
    )


def test_at_most_a_line_every_so_often(tmp_path, capsys, monkeypatch):
    """Twenty jobs in no time are the last line only, and a look that finds nothing new is none."""
    monkeypatch.setattr(watch, "LOOK", 0.001)
    with Watch(tmp_path, 20, ["seed"]) as looking:
        for number in range(20):
            job(tmp_path, number, "finished", f"seed={number}")
        while looking.ended < 20:
            time.sleep(0.001)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_what_was_there_before_is_not_told_again(tmp_path, capsys, at_once):
    job(tmp_path, 0, "running", "seed=1")  # killed long ago
    job(tmp_path, 1, "failed", "seed=2", error="ValueError: a")
    logged(tmp_path, 1, "WARNING normlab.x: old")
    job(tmp_path, 7, "finished", "seed=9", score=1.0)  # another command's
    with Watch(tmp_path, 3, ["seed"], [0, 1, 2]):
        job(tmp_path, 2, "finished", "seed=3")
        said = wait_for(capsys, "1/3 done, 1 failed, 0 s left, best val/acc 0.5 seed=3")
        assert "job" not in said
        logged(tmp_path, 1, "WARNING normlab.x: new")
        job(tmp_path, 1, "failed", "seed=2", error="ValueError: a")
        wait_for(capsys, "job 1 (seed=2) failed: ValueError: a")
    assert ": 1 finished, 1 failed, 1 not finished, best val/acc 0.5 seed=3" in capsys.readouterr().out


def test_a_warning_is_told_once_however_many_jobs_have_it(tmp_path, capsys, at_once):
    with Watch(tmp_path, 2, ["seed"]):
        for number in (0, 1):
            job(tmp_path, number, "running", f"seed={number}")
            logged(tmp_path, number, "INFO normlab.runner: epoch 1")
            logged(tmp_path, number, "WARNING py.warnings: /a.py:7: UserWarning: careful")
            logged(tmp_path, number, f"WARNING normlab.nonfinite: batch {number}")
        logged(tmp_path, 1, "WARNING normlab.nonfinite: batch 0")
        said = wait_for(capsys, "job 1 (seed=1): batch 1")
    said += capsys.readouterr().err
    assert "job 0 (seed=0): /a.py:7: UserWarning: careful\n" in said
    assert said.count("careful") == said.count("batch 0") == said.count("batch 1") == 1
    assert "epoch" not in said


def test_scores_that_cannot_be_compared_have_no_best(tmp_path, capsys):
    with Watch(tmp_path, 2, ["data"]):
        job(tmp_path, 0, "finished", "data=wine")
        job(tmp_path, 1, "finished", "data=diabetes", score_name="val/r2")
    assert "best" not in capsys.readouterr().out


@pytest.mark.parametrize(("mode", "best"), [("max", "0.9 norm=n2"), ("min", "0.1 norm=n1")])
def test_the_best_is_that_of_the_scores_mode(mode, best, tmp_path, capsys):
    with Watch(tmp_path, 3, ["norm"]):
        for number, score in ((1, 0.1), (2, 0.9), (3, None)):
            job(tmp_path, number, "finished", f"norm=n{number}", score=score, score_mode=mode)
    assert f"best val/acc {best}," in capsys.readouterr().out


def test_the_best_of_a_sweep_over_seeds_is_no_lucky_run(tmp_path, capsys):
    """The highest run is of a configuration with a lower mean, and one that has just begun is not compared."""
    scores = {"a": [0.99, 0.5, 0.5], "b": [0.9, 0.9, 0.9], "c": [0.98]}
    with Watch(tmp_path, 9, ["norm", "seed", "data.fold"]):
        runs = [(norm, seed, score) for norm, each in scores.items() for seed, score in enumerate(each)]
        for number, (norm, seed, score) in enumerate(runs):
            job(tmp_path, number, "finished", f"norm={norm}", f"seed={seed}", score=score)
    assert "best val/acc 0.9 norm=b (mean of 3)," in capsys.readouterr().out


@settings(deadline=None)
@given(st.integers(2, 24), st.integers(1, 8), st.floats(0.01, 1000), st.floats(0, 0.99))
def test_the_time_left_is_right_within_two_from_the_second_job_on(jobs, beside, each, phase):
    """Equal jobs, so many side by side, looked at twenty times while each of them runs."""
    starts = [each * (number // beside) for number in range(jobs)]
    end, step = max(starts) + each, each / 20
    pace, over, now = Pace(0.0), set(), phase * step
    while now < end - 3 * step:  # a job begins up to a look before it is seen
        running = [number for number, start in enumerate(starts) if start <= now < start + each]
        ended = {number for number, start in enumerate(starts) if start + each <= now}
        pace.look(running, sorted(ended - over), now)
        over = ended
        if len(over) >= 2:
            assert (end - now) / 2 <= pace.left(jobs - len(over) - len(running), now) <= 2 * (end - now)
        now += step


def test_jobs_too_short_to_be_seen_running_have_a_pace():
    pace = Pace(0.0)
    for number in range(10):
        pace.look([], [2 * number, 2 * number + 1], 0.5 * (number + 1))
    assert pace.left(20, 5.0) == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (192, "3 min 12 s"), (3600, "1 h 0 min"), (8000, "2 h 13 min")],
)
def test_a_duration_as_a_person_says_it(seconds, told):
    assert duration(seconds) == told


@pytest.mark.slow
def test_a_terminal_has_one_live_line_and_ctrl_c_says_how_to_go_on(tmp_path):
    """A real terminal; two jobs are refused, one finishes and one would take long. What they say is in train.log."""
    small = ["model=net", "data=wine", "logger=none", "norm=instance,batch", "trainer.max_epochs=2,9999"]
    command = [sys.executable, str(ROOT / "train.py"), "-m", *small, "name=s"]
    screen, terminal = pty.openpty()
    settings = os.environ | {"COLUMNS": "150", "TERM": "xterm-256color"}
    process = subprocess.Popen(
        command, cwd=tmp_path, stdin=terminal, stdout=terminal, stderr=terminal, env=settings, start_new_session=True
    )
    os.close(terminal)
    wait_for_rows(tmp_path / "outputs" / "s" / "3" / "metrics.csv", 3)
    time.sleep(2 * watch.LOOK)
    os.killpg(process.pid, 2)
    seen = b""
    while True:
        try:
            part = os.read(screen, 65536)
        except OSError:  # its end, on Linux
            break
        if not part:
            break
        seen += part
    os.close(screen)
    assert process.wait() == 130
    text = seen.decode()
    live, rest = text.rsplit("\x1b[?25h", 1)  # the code shows the cursor again
    assert "0/4 done, 1 running" in live
    assert "1/4 done, 1 running, 2 failed" in live
    assert live.count("norm=instance takes its statistics over space") == 2
    for noise in ("Traceback", "Error executing", "parameters, on", "epoch 1", "HYDRA"):
        assert noise not in text
    assert "4 jobs: 1 finished, 2 failed, 1 not finished, best val/acc " in rest
    assert "interrupted; the same command with name=s goes on" in rest
    log = (tmp_path / "outputs" / "s" / "2" / "train.log").read_text()
    assert "parameters, on" in log
    assert "epoch 2/2" in log
