"""Whatever goes wrong with any one write to a run folder, the same command ends in the unbroken run.

For each write of a short run: the process ends before it or in the middle of it, the power fails before it, it fails
with EIO, or the disk is full from there on. SQLite is tested like this: https://sqlite.org/testing.html
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.disk import Disk, replay
from helpers.folders import state

from normlab import compose, run
from normlab.errors import WriteError
from normlab.folder import lock

WINE = ["model=net", "data=wine", "logger=none", "trainer.max_epochs=2"]
WRITES = 120  # more than a run makes, so that each is a test
QUICK = (35, 69)  # those of them that are tried by default: of result.json, and of a later checkpoint
LOGS = ("train.log", "environment.json", ".lock")  # a start more has lines more


def every(*faults: str):
    """Each fault with each write: a few by default, a third of them by -m slow, the others by -m endurance."""

    def marks(number: int):
        if number in QUICK:
            return ()
        return pytest.mark.slow if number % 3 == 0 else pytest.mark.endurance

    cases = [pytest.param(fault, number, marks=marks(number)) for fault in faults for number in range(WRITES)]
    return pytest.mark.parametrize(("fault", "number"), cases)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The writes of an unbroken run, and its folder."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    disk = Disk(folder)
    with disk.watching():
        run(compose(WINE), folder=folder)
    assert 60 < len(disk.steps) < WRITES
    return disk


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """The machine that lost its power takes longer than this to start again."""
    monkeypatch.setattr(lock, "SILENCE", 0.0)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def assert_ends_as(folder, unbroken):
    """Runs the command, and compares what the folder then holds."""
    run(compose(WINE), folder=folder)
    found, expected = contents(folder), contents(unbroken)
    left = {path for path in found if path.suffix == ".aside" or path.name == ".owner"}  # a finished run is not touched
    assert found.keys() - left == expected.keys()
    for path in expected.keys() - {*map(Path, LOGS)}:
        if path.suffix == ".ckpt":
            one, other = state(folder, path.stem), state(unbroken, path.stem)
            assert same({**one, "loops": 0}, {**other, "loops": 0}), path
        elif path.name == "result.json":
            results = [json.loads(content[path]) for content in (found, expected)]
            assert {**results[0], "seconds": 0} == {**results[1], "seconds": 0}
        elif path.name == "config.yaml":
            lines = [content[path].split(b"\n", 1)[1] for content in (found, expected)]  # the first names the folder
            assert lines[0] == lines[1]
        else:
            assert found[path] == expected[path], path


@pytest.mark.parametrize("action", ["fit", "test", "predict", pytest.param("stats", marks=pytest.mark.slow)])
def test_no_write_goes_past_the_disk_of_these_tests(whole, tmp_path, action):
    if action == "fit":
        disk, start = whole, tmp_path / "copy"
    else:
        replay(whole.steps, tmp_path / "run")
        replay(whole.steps, start := tmp_path / "copy")
        disk = Disk(tmp_path / "run")
        ckpt = [] if action == "stats" else [f"ckpt={tmp_path}/run/checkpoints/best.ckpt"]
        with disk.watching():
            run(compose([*([] if ckpt else WINE[:3]), f"action={action}", *ckpt]), folder=tmp_path / "run")
        assert disk.steps
    replay(disk.steps, start)
    assert contents(start) == contents(disk.folder)


def test_a_file_is_on_the_disk_before_it_takes_its_name(whole):
    """Only checkpoints may come without, as long as the last that was synced keeps a second name."""
    steps, unsynced = whole.steps, []
    for number, step in enumerate(steps):
        if step.kind == "replace":
            before = max(n for n in range(number) if steps[n].path == step.path and steps[n].kind in ("write", "fsync"))
            if steps[before].kind == "fsync":
                assert (steps[number + 1].kind, Path(steps[number + 1].path)) == ("fsync", Path(step.target).parent)
            else:
                unsynced.append(step.target)
    assert unsynced == ["checkpoints/last.ckpt", "checkpoints/best.ckpt"]  # of the second epoch
    assert [step.target for step in steps if step.kind == "link"] == [
        "checkpoints/last.synced.ckpt",
        "checkpoints/best.synced.ckpt",
    ]


@every("ends before", "ends within")
def test_the_process_ends(whole, tmp_path, fault, number):
    steps = whole.steps[:number]
    if fault == "ends within" and number < len(whole.steps):
        torn = whole.steps[number]
        steps = [*steps, replace(torn, data=torn.data[: len(torn.data) // 2])] if torn.kind == "write" else steps
    replay(steps, tmp_path / "run")
    assert_ends_as(tmp_path / "run", whole.folder)


@every("data", "names")
def test_the_power_fails(whole, tmp_path, fault, number):
    replay(whole.steps[:number], tmp_path / "run", power_cut=fault)
    assert_ends_as(tmp_path / "run", whole.folder)


@every("EIO", "ENOSPC")
def test_the_disk_fails_or_is_full(whole, tmp_path, fault, number):
    folder = tmp_path / "run"
    disk = Disk(folder, fault, number)
    reason = {"EIO": "Input/output error", "ENOSPC": "No space left on device"}[fault]
    failed = None
    with disk.watching():
        try:
            run(compose(WINE), folder=folder)
        except WriteError as error:
            failed = error
    faulty = disk.steps[number] if number < len(disk.steps) else None
    if failed is None:  # nothing depends on it: a line of the log, a second name, a folder that was there
        harmless = ("train.log", ".owner", ".synced.ckpt")
        assert faulty is None or faulty.kind in ("link", "mkdir") or faulty.path.endswith(harmless)
    else:
        assert faulty is not None
        assert f" cannot be written: {reason}; " in str(failed)
        assert "\n" not in str(failed)
        told = json.loads((folder / "result.json").read_text()) if (folder / "result.json").is_file() else {}
        could = fault == "EIO" and "result.json" not in faulty.path and faulty.kind != "fsync"
        assert told.get("status") in ((None, "failed") if could else (None, "failed", "running", "finished"))
    assert_ends_as(folder, whole.folder)
