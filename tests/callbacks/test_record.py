"""A run that is killed at any point of writing its checkpoints goes on to the same last and best."""

import shutil

import pytest
import torch
from helpers.cases import rest_slow

from normlab import compose, run
from normlab.callbacks import record

WINE = ["model=net", "data=wine", "logger=none", "trainer.max_epochs=6"]


class KilledError(Exception):
    """Stands for a kill."""


def state(folder, which):
    return torch.load(folder / "checkpoints" / f"{which}.ckpt", weights_only=True)


def assert_resumes(folder, whole):
    run(compose(WINE), folder=folder)
    for which in ("last", "best"):
        found, expected = state(folder, which), state(whole, which)
        assert found["epoch"] == expected["epoch"], which
        assert all(torch.equal(found["state_dict"][key], value) for key, value in expected["state_dict"].items())
    assert (folder / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.parametrize(
    "moment", rest_slow(["before the best", "with a part of it", "after the best"], lambda case: "part" in case[0])
)
def test_killed_between_the_last_and_the_best(tmp_path, monkeypatch, moment):
    original, calls = record.copy_whole, []
    monkeypatch.setattr(record, "copy_whole", lambda *given: calls.append(1) or original(*given))
    run(compose(WINE), folder=tmp_path / "whole")
    improvements = len(calls)
    assert improvements > 1

    def killed(last, best, sync):
        calls.append(1)
        if len(calls) == 2 * improvements:
            if moment == "after the best":
                original(last, best, sync)
            if moment == "with a part of it":
                shutil.copyfile(last, best.with_name(".best.ckpt.part"))
            raise KilledError
        original(last, best, sync)

    monkeypatch.setattr(record, "copy_whole", killed)
    with pytest.raises(KilledError):
        run(compose(WINE), folder=tmp_path / "run")
    last, best = (state(tmp_path / "run", which)["epoch"] for which in ("last", "best"))
    assert last == best if moment == "after the best" else last > best
    monkeypatch.undo()
    assert_resumes(tmp_path / "run", tmp_path / "whole")
