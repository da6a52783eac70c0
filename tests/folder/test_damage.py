"""Damaged files of a run: each is told in one line, and costs nothing that can be kept."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.cases import ROOT, rest_slow
from helpers.processes import train
from lightning import Callback
from torch import nn

from normlab import compose, run
from normlab.callbacks.record import Record
from normlab.errors import ConfigError, DamagedError
from normlab.folder.checkpoints import load_weights, read
from normlab.folder.files import known_result
from normlab.runner.actions import saved_progress
from normlab.sweeps.grid import earlier

WINE = ["model=net", "data=wine", "logger=none", "trainer.max_epochs=5"]
BEST = 1  # the epoch that is the best one, by the score of `trained`


@pytest.fixture(autouse=True)
def best_early(monkeypatch):
    """Runs in which the best epoch is not the last one."""
    monkeypatch.setattr(Record, "_is_better", lambda self, score: self.best is None or self.best["epoch"] < BEST)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run, and one of the same configuration that was stopped in epoch 4."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Record, "_is_better", lambda self, score: self.best is None or self.best["epoch"] < BEST)
        run(compose(WINE), folder=folder / "finished")
        with pytest.raises(InterruptedError):
            run(compose(WINE), folder=folder / "stopped", callbacks=[StopAt(4)])
    return folder


class StopAt(Callback):
    """Interrupts training after the first batch of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_end(self, trainer, *_):
        if trainer.current_epoch == self.epoch:
            raise InterruptedError


def contents(folder):
    """What the files of a folder hold, but for the log and the lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("train.log", ".lock"))
    return {path.relative_to(folder): path.read_bytes() for path in files}


def same(a, b):
    """Whether two trees hold the same numbers, bit for bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def is_one_line(error):
    told = str(error)
    return "\n" not in told and "weights_only" not in told and "Traceback" not in told


def outcome(call):
    """What a call gives, and the refusal that it ends in."""
    try:
        return call(), None
    except DamagedError as error:
        return None, error


# ---- checkpoints ----


@pytest.mark.parametrize("part", [100, pytest.param(4, marks=pytest.mark.slow)], ids=["1 %", "a quarter"])
def test_a_flipped_byte_anywhere_is_told_or_changes_nothing(whole, tmp_path, part):
    file, damaged = whole / "stopped/checkpoints/last.ckpt", tmp_path / "last.ckpt"
    expected, content = read(file), file.read_bytes()
    told = 0
    for position in np.random.default_rng(0).permutation(len(content))[::part]:
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        damaged.write_bytes(changed)
        found, error = outcome(lambda: read(damaged))
        assert is_one_line(error) if error else same(found, expected), position
        told += error is not None
    assert told > len(content) / part / 3  # the others are padding, times and the like


def test_a_flipped_byte_in_a_tensor_is_told_where_torch_loads_it(whole, tmp_path):
    content = (whole / "stopped/checkpoints/last.ckpt").read_bytes()
    weight = read(whole / "stopped/checkpoints/last.ckpt")["state_dict"]["network.fc1.weight"]
    place = content.index(weight.numpy().tobytes()) + 100
    (tmp_path / "a.ckpt").write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    torch.load(tmp_path / "a.ckpt", weights_only=True)
    with pytest.raises(DamagedError, match=r"a.ckpt is no checkpoint of normlab: its part .*/data/\d+ was changed"):
        read(tmp_path / "a.ckpt")


def test_a_file_that_is_cut_off_anywhere_is_no_checkpoint(whole, tmp_path):
    content, cut = (whole / "stopped/checkpoints/last.ckpt").read_bytes(), tmp_path / "cut.ckpt"
    for length in [*range(0, len(content), len(content) // 20), len(content) - 1]:
        cut.write_bytes(content[:length])
        with pytest.raises(DamagedError) as refusal:
            read(cut)
        assert is_one_line(refusal.value)


class Evil:
    def __reduce__(self):
        return (os.system, ("touch it_ran",))


FOREIGN = {
    "a pickle": lambda file: file.write_bytes(pickle.dumps(Evil())),
    "a model": lambda file: torch.save(nn.Linear(2, 2), file),
    "code": lambda file: torch.save({"state_dict": Evil()}, file),
    "a list": lambda file: torch.save([torch.zeros(2)], file),
    "no tensors": lambda file: torch.save({"state_dict": {"a": 1}}, file),
    "weights alone": lambda file: torch.save(nn.Linear(2, 2).state_dict(), file),
    "an archive": lambda file: shutil.move(shutil.make_archive(str(file), "zip", ROOT / "tests" / "gpu"), file),
    "text": lambda file: file.write_text("version https://git-lfs.github.com/spec/v1\n"),
    "nothing": lambda file: file.write_bytes(b""),
    "zeros": lambda file: file.write_bytes(bytes(5000)),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_no_checkpoint(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    FOREIGN[kind](tmp_path / "a.ckpt")
    with pytest.raises(DamagedError, match="^a.ckpt is no checkpoint of normlab: it ") as refusal:
        load_weights(nn.Linear(2, 2), tmp_path / "a.ckpt")
    assert is_one_line(refusal.value)
    assert not Path("it_ran").exists()


def test_weights_in_torchs_old_format_are_loaded(tmp_path):
    """They are no zip archive and have no checksums."""
    torch.save({"state_dict": nn.Linear(2, 2).state_dict()}, tmp_path / "a", _use_new_zipfile_serialization=False)
    load_weights(nn.Linear(2, 2), tmp_path / "a")


DAMAGE = {
    "cut": lambda file: os.truncate(file, file.stat().st_size // 2),
    "empty": lambda file: os.truncate(file, 0),
    "foreign": FOREIGN["weights alone"],
    "missing": lambda file: file.unlink(),
    "flipped": lambda file: file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:]),
}


DAMAGED = (["last"], ["best"], ["last", "best"])
QUICK = ["cut last", "flipped best", "empty last and best"]
CASES = {f"{damage} {' and '.join(damaged)}": (damaged, damage) for damage in DAMAGE for damaged in DAMAGED}


@pytest.mark.parametrize("case", [pytest.param(c, marks=[] if c in QUICK else [pytest.mark.slow]) for c in CASES])
def test_a_run_with_damaged_checkpoints_ends_as_if_nothing_had_been(whole, tmp_path, monkeypatch, case):
    damaged, damage = CASES[case]
    folder = tmp_path / "run"
    shutil.copytree(whole / "stopped", folder)
    for which in damaged:
        DAMAGE[damage](folder / f"checkpoints/{which}.ckpt")
    monkeypatch.chdir(tmp_path)
    run(compose(WINE), folder=folder)
    for which in ("last", "best"):
        found, expected = (read(path / f"checkpoints/{which}.ckpt") for path in (folder, whole / "finished"))
        assert same({**found, "loops": 0}, {**expected, "loops": 0}), which
    assert (folder / "metrics.csv").read_bytes() == (whole / "finished/metrics.csv").read_bytes()
    results = [json.loads((path / "result.json").read_text()) for path in (folder, whole / "finished")]
    assert {**results[0], "seconds": 0} == {**results[1], "seconds": 0}
    log = (folder / "train.log").read_text().replace(str(folder), "run")
    aside = {path.name for path in (folder / "checkpoints").iterdir()} - {"last.ckpt", "best.ckpt"}
    if damage != "missing":
        assert {f"{which}.ckpt.aside" for which in damaged} <= aside
        assert all(f"{which}.ckpt.aside" in log for which in damaged)
    begins = "going on from run/checkpoints/best.ckpt, epoch 1" if damaged == ["last"] else "the run begins anew"
    assert begins.replace("run/", "") in log.replace("run/", "") or (damage, len(damaged)) == ("missing", 2)


def test_a_lost_best_that_is_the_last_one_costs_nothing(whole, tmp_path):
    """It is made of the last once more."""
    shutil.copytree(whole / "stopped", tmp_path / "run")
    checkpoints = tmp_path / "run" / "checkpoints"
    shutil.copyfile(checkpoints / "best.ckpt", checkpoints / "last.ckpt")
    os.truncate(checkpoints / "best.ckpt", 100)
    run(compose(WINE), folder=tmp_path / "run")
    assert "begins anew" not in (tmp_path / "run" / "train.log").read_text()
    assert read(checkpoints / "best.ckpt")["epoch"] == BEST
    assert (tmp_path / "run/metrics.csv").read_bytes() == (whole / "finished/metrics.csv").read_bytes()


def test_a_checkpoint_of_another_network_is_refused_and_kept(whole, tmp_path):
    shutil.copytree(whole / "stopped", tmp_path / "run")
    last = tmp_path / "run/checkpoints/last.ckpt"
    saved = torch.load(last, weights_only=True)
    saved["state_dict"]["network.fc1.weight"] = torch.zeros(3, 3)
    torch.save(saved, last)
    before = last.read_bytes()
    with pytest.raises(ConfigError, match=r"belongs to another network:\n.*\(3, 3\) there"):
        run(compose(WINE), folder=tmp_path / "run")
    assert last.read_bytes() == before


@pytest.mark.endurance
def test_one_of_two_processes_sets_a_damaged_checkpoint_aside(tmp_path):
    typed = [*WINE, "trainer=ddp_cpu", "name=a"]
    train(*typed, "trainer.max_epochs=2", cwd=tmp_path)
    expected = (tmp_path / "outputs/a/metrics.csv").read_bytes()
    for file in ("last", "best"):
        os.truncate(tmp_path / f"outputs/a/checkpoints/{file}.ckpt", 1000)
    result = tmp_path / "outputs/a/result.json"
    result.write_text(json.dumps({**json.loads(result.read_text()), "status": "interrupted"}))
    done = train(*typed, "trainer.max_epochs=2", cwd=tmp_path)
    assert (done.stdout + done.stderr).count("last.ckpt.aside") == 1
    assert (done.stdout + done.stderr).count("the run begins anew") == 1
    assert (tmp_path / "outputs/a/metrics.csv").read_bytes() == expected


# ---- the other files ----


@pytest.fixture
def folder(whole, tmp_path, monkeypatch):
    """A run that was tested once, in the folder that is looked at from here."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole / "finished", "outputs/a")
    run(compose(["action=test", "name=a"]))
    return Path("outputs/a")


def test_a_refused_look_leaves_the_one_before(folder):
    before = contents(folder)
    FOREIGN["code"](Path("bad.ckpt"))
    torch.save({"state_dict": nn.Linear(2, 2).state_dict()}, "other.ckpt")
    for typed in (["ckpt=bad.ckpt"], ["ckpt=other.ckpt"], ["data=iris"], ["norm=group", "ckpt=last"]):
        with pytest.raises(ConfigError):
            run(compose(["action=test", "name=a", *typed]))
        assert contents(folder) == before, typed
    with pytest.raises(ConfigError):
        run(compose(["action=validate", "name=a", "ckpt=bad.ckpt"]))
    assert json.loads((folder / "validate/result.json").read_text())["status"] == "refused"  # there was none before


def spoiled(text):
    """A file's text, damaged: cut at some places, empty, or something else."""
    cuts = (len(text) * part // 4 for part in (1, 2, 3))
    foreign = (
        "[1, 2]",
        "{}",
        '{"status": "finished", "score": "high"}',
        "\x00\x01\x02",
        "epoch\nx\n",
    )
    return ["", *(text[:place] for place in cuts), *foreign]


FILES = ["config.yaml", "result.json", "environment.json", "data.json", "metrics.csv"]


@pytest.mark.parametrize(
    "name", rest_slow(FILES, lambda case: case[0] in ("config.yaml", "result.json", "metrics.csv"))
)
def test_a_damaged_file_is_one_line_and_nothing_is_overwritten(folder, name):
    whole = (folder / name).read_text()
    typed = {"config.yaml": ["action=test", "name=a"]}.get(name, [*WINE, "name=a"])
    refused = 0
    for text in spoiled(whole):
        (folder / name).write_bytes(text.encode("latin-1"))
        before = contents(folder)
        _, error = outcome(lambda: run(compose(typed)))
        if error is not None:
            assert is_one_line(error)
            assert f"outputs/a/{name}" in str(error)
            refused += 1
        assert contents(folder) == before, text
    assert refused >= (9 if name not in ("metrics.csv", "data.json") else 5)  # a cut row is that of a kill


@pytest.mark.parametrize(
    "name", rest_slow(["result.json", "environment.json", "config.yaml"], lambda case: case[0] == "config.yaml")
)
def test_a_damaged_file_of_a_look_is_one_line_too(folder, name):
    for text in spoiled((folder / "test" / name).read_text()):
        (folder / "test" / name).write_bytes(text.encode("latin-1"))
        before = contents(folder)
        with pytest.raises(DamagedError, match=f"outputs/a/test/{name}") as refusal:
            run(compose(["action=test", "name=a"]))
        assert is_one_line(refusal.value)
        assert contents(folder) == before


def test_new_samples_are_not_read_by_damaged_facts(folder):
    Path("new.csv").write_text("a,b\n1,2\n")
    for text in spoiled((folder / "data.json").read_text()):
        (folder / "data.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(DamagedError, match="outputs/a/data.json"):
            run(compose(["action=predict", "name=a", "input=new.csv"]))


def test_facts_that_no_data_set_keeps_are_not_taken(folder):
    from normlab.data.wine import Wine

    facts = json.loads((folder / "data.json").read_text())
    (folder / "data.json").write_text(json.dumps(facts | {"setup": 1, "batch_size": 7}))
    data = Wine()
    data.restore(folder)
    assert data.batch_size != 7
    assert callable(data.setup)


def test_metrics_that_end_before_each_checkpoint_are_told(whole, tmp_path):
    shutil.copytree(whole / "stopped", tmp_path / "run")
    table = tmp_path / "run/metrics.csv"
    rows = table.read_text().splitlines(keepends=True)
    for kept in (rows[:1], [*rows[:2], *rows[3:]], [rows[0], rows[1].replace(",", ",x", 1), *rows[2:]]):
        table.write_text("".join(kept))
        before = contents(tmp_path / "run")
        with pytest.raises(DamagedError, match=r"metrics.csv has no row of epoch 3, which .*last.ckpt is of"):
            run(compose(WINE), folder=tmp_path / "run")
        assert contents(tmp_path / "run") == before
    table.unlink()  # the remedy
    run(compose(WINE), folder=tmp_path / "run")


@pytest.mark.parametrize("harm", ["a row after its turn", "a torn row", "rows of the best alone"])
def test_damaged_rows_are_cut_and_an_earlier_checkpoint_takes_the_place_of_one_without_a_row(whole, tmp_path, harm):
    shutil.copytree(whole / "stopped", tmp_path / "run")
    table = tmp_path / "run/metrics.csv"
    rows = table.read_text().splitlines(keepends=True)
    kept = {"a row after its turn": [*rows, rows[1]], "a torn row": [*rows, "4,,\0\0\0,\n"]}.get(harm, rows[:3])
    table.write_text("".join(kept))
    run(compose(WINE), folder=tmp_path / "run")
    went_back = f"going on from {tmp_path}/run/checkpoints/best.ckpt, epoch {BEST}"
    assert (went_back in (tmp_path / "run/train.log").read_text()) == (harm == "rows of the best alone")
    assert table.read_bytes() == (whole / "finished/metrics.csv").read_bytes()


def test_a_row_that_lost_its_end_is_no_other_epochs(tmp_path):
    """A kill may leave a 1 of a 12."""
    from normlab.callbacks.record import MetricsTable

    table = MetricsTable(tmp_path / "metrics.csv", ["epoch", "a"])
    table.truncate(0)
    for epoch in range(12):
        table.append({"epoch": epoch, "a": epoch})
    text = table.file.read_text()
    table.file.write_text(text + "1")
    table.truncate(12)
    assert table.file.read_text() == text


def test_a_damaged_job_is_unknown_to_its_sweep(whole, tmp_path):
    for number in range(3):
        shutil.copytree(whole / "finished", tmp_path / str(number))
    os.truncate(tmp_path / "1/result.json", 50)
    assert list(earlier(tmp_path)) == [0, 2]
    assert known_result(tmp_path / "1") == {}


@pytest.mark.slow
def test_one_damaged_job_of_a_sweep_stops_no_other(tmp_path):
    sweep = ["-m", *WINE[:3], "trainer.max_epochs=1", "seed=0,1,2", "name=s"]
    train(*sweep, cwd=tmp_path)
    folder = tmp_path / "outputs/s"
    os.truncate(folder / "0/result.json", 50)
    (folder / "1/config.yaml").write_text("")
    result = json.loads((folder / "1/result.json").read_text())
    (folder / "1/result.json").write_text(json.dumps({**result, "status": "interrupted"}))
    before = {number: contents(folder / number) for number in "012"}
    done = train(*sweep[:-2], "seed=0,1,2,3", "name=s", cwd=tmp_path, check=1)
    assert "outputs/s/1/config.yaml is empty" in done.stdout + done.stderr
    assert {number: contents(folder / number) for number in "012"} == before
    statuses = {number: known_result(folder / number).get("status") for number in "034"}
    assert list(statuses.values()) == [None, "finished", "finished"]
    summary = (folder / "summary.md").read_text()
    assert "result.json is empty, cut off or of another program" in summary


def test_how_far_a_run_came_is_read_without_its_weights(whole, tmp_path):
    """A large checkpoint takes seconds to compare with its checksums, and Ctrl-C is not to wait for that."""
    file = Path(shutil.copy(whole / "finished" / "checkpoints" / "last.ckpt", tmp_path))
    weight = next(iter(torch.load(file, weights_only=True)["state_dict"].values()))
    stored = file.read_bytes()
    place = stored.index(weight.numpy().tobytes())
    file.write_bytes(stored[:place] + b"\0\0\0\0" + stored[place + 4 :])
    with pytest.raises(DamagedError, match="was changed"):
        read(file)
    assert saved_progress(tmp_path)["epochs"] == 5
