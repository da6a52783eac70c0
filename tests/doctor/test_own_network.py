"""`python -m normlab.doctor module:network`: a network that is no run, from the shell."""

import sys

import pytest
import torch
from torch import nn

from normlab.doctor.__main__ import main

MINE = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
y = torch.arange(600) % 3
x = 5 + 2 * torch.randn(600, 6) + 4 * torch.eye(3, 6)[y]
train = DataLoader(TensorDataset(x[:300], y[:300]), 20)
test = DataLoader(TensorDataset(x[300:], y[300:]), 50)

def network():
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
"""
LOADERS = ["--train", "mine_to_see:train", "--test", "mine_to_see:test"]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The folder of a module with a network and its data; the command in it."""
    (tmp_path / "mine_to_see.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    sys.modules.pop("mine_to_see", None)


def command(monkeypatch, *words) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["normlab.doctor", *words])
    try:
        main()
    except SystemExit as end:
        return end.code
    return 0


def test_statistics_of_other_weights_are_stale_and_those_of_training_are_not(mine, monkeypatch, capsys):
    import mine_to_see

    network = mine_to_see.network()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for _ in range(10):
        for x, y in mine_to_see.train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()
    torch.save({"state_dict": network.state_dict()}, mine / "good.pt")
    network[1].running_mean += 3
    torch.save({"state_dict": network.state_dict()}, mine / "bad.pt")
    assert command(monkeypatch, "mine_to_see:network", *LOADERS, "--weights", "good.pt") == 0
    assert capsys.readouterr().out.startswith("healthy: 1 norm layer")
    assert command(monkeypatch, "mine_to_see:network", *LOADERS, "--weights", "bad.pt") == 0
    said = capsys.readouterr().out
    assert "stale_statistics (1)" in said
    assert "normlab.estimate_statistics(network, train_loader)" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mine_to_see:network"], "name the loaders of its data too, as --train mine_to_see:train_loader"),
        (["nowhere:network", *LOADERS], "there is no module nowhere"),
        (["mine_to_see:net", *LOADERS], "has no attribute 'net'; give module:attribute"),
        (["mine_to_see:x", *LOADERS], "is of Tensor; expected an nn.Module"),
        (["mine_to_see:network", *LOADERS, "--weights", "none.pt"], "--weights: none.pt"),
        (["mine_to_see:network", *LOADERS, "--weights", "other.pt"], "--weights: other.pt holds another network"),
    ],
)
def test_refusals(mine, monkeypatch, capsys, words, message):
    torch.save({"weight": torch.zeros(2)}, mine / "other.pt")
    assert command(monkeypatch, *words) == 2
    said = capsys.readouterr().err
    assert said.startswith("refused: ")
    assert message in said
    assert said.count("\n") == 1
