"""`keep` says which checkpoints stay when a run has ended; what needs one that did not stay is refused in a line."""

import json
from pathlib import Path

import pytest
import torch
from helpers.folders import result_of, rows_of, state

from normlab import compose, run
from normlab.callbacks.record import Record
from normlab.errors import ConfigError
from normlab.folder.identity import config_hash

WINE = ["model=net", "data=wine", "logger=none", "trainer.max_epochs=3"]
BEST = 1  # the epoch that is the best one


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Record, "_is_better", lambda self, score: self.best is None or self.best["epoch"] < BEST)


def go(*typed):
    return run(compose(list(typed)))


def kept(name):
    return sorted(file.name for file in Path(f"outputs/{name}/checkpoints").iterdir())


@pytest.mark.parametrize(
    ("keep", "files"),
    [
        pytest.param("[]", [], marks=pytest.mark.slow),
        ("[last,every_2_epochs]", ["after_2_epochs.ckpt", "last.ckpt"]),
    ],
)
def test_a_run_keeps_what_is_asked_and_its_numbers_are_the_same(keep, files):
    whole, result = go(*WINE, "name=whole"), go(*WINE, "name=a", f"keep={keep}")
    assert kept("a") == files
    assert (result.score, result.metrics) == (whole.score, whole.metrics)
    assert rows_of(Path("outputs/a")) == rows_of(Path("outputs/whole"))
    told = result_of(Path("outputs/a"))
    assert told["best"] == {"epoch": BEST, "path": "checkpoints/best.ckpt" if "best" in keep else None}
    assert go(*WINE, "name=a", f"keep={keep}").score == result.score  # it is finished, and is not trained again
    assert kept("a") == files


def test_each_kept_checkpoint_is_that_of_its_epoch_and_is_loaded_by_its_name():
    go(*WINE, "name=a", "keep=[best,last,every_1_epochs]")
    folder = Path("outputs/a")
    for epochs in range(1, 4):
        assert state(folder, f"after_{epochs}_epochs")["epoch"] == epochs - 1
    assert (folder / "checkpoints/after_3_epochs.ckpt").stat().st_ino != (
        folder / "checkpoints/last.ckpt"
    ).stat().st_ino
    losses = []
    for ckpt in ("after_2_epochs", "after_2_epochs.ckpt", "outputs/a/checkpoints/after_2_epochs.ckpt"):
        losses.append(go("action=test", "name=a", f"ckpt={ckpt}").metrics["test/loss"])
    assert len({*losses}) == 1
    assert losses[0] == go("action=test", "name=a").metrics["test/loss"]  # epoch 1, counted from 0, is the best
    assert losses[0] != go("action=test", "name=a", "ckpt=after_1_epochs").metrics["test/loss"]
    with pytest.raises(ConfigError, match="ckpt=after_9_epochs: there is no file"):
        compose(["action=test", "name=a", "ckpt=after_9_epochs"])


def test_what_needs_a_checkpoint_that_was_not_kept_is_refused():
    go(*WINE, "name=none", "keep=[]")
    go(*WINE, "name=last", "keep=[last]")
    go(*WINE, "name=best", "keep=[best]")
    for typed, message in (
        (
            ["action=test", "name=none"],
            r"action=test needs outputs/none/checkpoints/best.ckpt, .* \(keep=\[\]\): train",
        ),
        (["action=predict", "name=last"], r"not keep \(keep=\[last\]\); it has last.ckpt: .* with keep=\[best\]"),
        (["action=validate", "name=best", "ckpt=last"], r"needs outputs/best/checkpoints/last.ckpt, .*has best.ckpt"),
        ([*WINE[:3], "trainer.max_epochs=4", "extend=true", "name=none"], r"extend=true needs .*best.ckpt"),
        ([*WINE[:3], "trainer.max_epochs=4", "extend=true", "name=last"], r"extend=true needs .*best.ckpt"),
    ):
        with pytest.raises(ConfigError, match=message) as refusal:
            compose(typed)
        assert "\n" not in str(refusal.value)


def test_a_run_is_trained_on_from_its_best_epoch_alone():
    for name, keep in (("whole", "[best,last]"), ("a", "[best]")):
        go(*WINE, "scheduler=step", f"name={name}", f"keep={keep}")
        go(*WINE[:3], "scheduler=step", "trainer.max_epochs=4", "extend=true", f"name={name}", "keep=[best,last]")
    whole, found = state(Path("outputs/whole")), state(Path("outputs/a"))
    assert found["epoch"] == 3
    assert all(torch.equal(found["state_dict"][key], value) for key, value in whole["state_dict"].items())


@pytest.mark.parametrize("keep", ["[bets]", "[every_0_epochs]", "[every_epoch]", "[1]"])
def test_what_is_no_checkpoint_is_refused(keep):
    with pytest.raises(ConfigError, match=r"expected|none of best, last and every_<number>_epochs"):
        compose([*WINE, f"keep={keep}"])


def test_what_is_kept_makes_no_other_run():
    config = compose([*WINE, "keep=[]"])
    assert config_hash(config) == config_hash(compose(WINE))


def test_a_killed_run_that_keeps_nothing_goes_on(monkeypatch):
    ended = []

    def stop(self, *given):
        ended.append(1)
        if len(ended) == 3:
            raise InterruptedError

    whole = go(*WINE, "name=whole")
    with monkeypatch.context() as patch:
        patch.setattr(Record, "on_train_epoch_start", stop)
        with pytest.raises(InterruptedError):
            go(*WINE, "name=a", "keep=[]")
    assert kept("a") == ["best.ckpt", "last.ckpt"]
    assert go(*WINE, "name=a", "keep=[]").metrics == whole.metrics
    assert kept("a") == []
    assert json.loads(Path("outputs/a/result.json").read_text())["status"] == "finished"
