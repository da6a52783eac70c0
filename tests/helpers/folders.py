"""What a run folder holds."""

import csv
import json

import torch


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def assert_same_weights(one, two) -> None:
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def rows_of(folder):
    return list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))


def state(folder, which="last"):
    return torch.load(folder / "checkpoints" / f"{which}.ckpt", weights_only=True)


def differences(one, other, where=""):
    """Where two checkpoints differ, in tensors, numbers, texts or keys."""
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [where]
    if isinstance(one, dict) and one.keys() == other.keys():
        keys = [key for key in one if "val_loop" not in str(key)]  # Lightning counts batches of the present start there
        return [line for key in keys for line in differences(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, list | tuple) and len(one) == len(other):
        return [line for place in range(len(one)) for line in differences(one[place], other[place], f"{where}/{place}")]
    return [] if one == other else [f"{where}: {one} and {other}"]


def assert_same_run(folder, whole):
    """Asserts that a run that went on ended as one that was never interrupted: checkpoints, rows, result."""
    for which in ("last", "best"):
        assert differences(state(folder, which), state(whole, which)) == []
    assert (folder / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    one, other = result_of(folder), result_of(whole)
    keys = ("status", "score", "metrics", "best", "epochs", "batches", "steps", "skipped", "majority", "config_hash")
    assert [one[key] for key in keys] == [other[key] for key in keys]
    assert not (folder / "checkpoints" / "within_epoch.ckpt").exists()
