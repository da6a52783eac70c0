"""Evaluation by test batches' statistics, and adaptation to them: against torch's own, and without a trace."""

import copy

import pytest
import torch
from lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from normlab import Classify, compose, run
from normlab.callbacks.prediction_time import PredictionTime
from normlab.callbacks.tent import Tent, entropy
from normlab.errors import ConfigError
from normlab.models.mynet import MyNet
from normlab.norms.batch import Batch
from normlab.norms.ghost import Ghost

QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
SIZE = 25


def task(norm) -> Classify:
    torch.manual_seed(0)
    network = MyNet(norm=norm, input_shape=(1, 8, 8), out_features=3)
    network.train()(torch.randn(40, 1, 8, 8))
    return Classify(network, torch.optim.SGD, lambda *_: None, num_classes=3)


def shifted() -> TensorDataset:
    torch.manual_seed(1)
    return TensorDataset(torch.randn(100, 1, 8, 8) * 3 + 2, torch.arange(100) % 3)


def measured(network_task: Classify, *callbacks) -> float:
    loader = DataLoader(shifted(), batch_size=SIZE)
    trainer = Trainer(callbacks=list(callbacks), accelerator="cpu", **QUIET)
    return trainer.test(network_task, loader, verbose=False)[0]["test/loss"]


def by_hand(network: nn.Module, adapts: bool) -> float:
    """The loss with norm layers in train mode; with `adapts`, Adam lowers the entropy after each batch is measured."""
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)]
    network.eval()
    optimizer = torch.optim.Adam([each for layer in layers for each in layer.parameters()], 0.05)
    losses = []
    for x, target in DataLoader(shifted(), batch_size=SIZE):
        for layer in layers:
            layer.train()
        logits = network(x)
        losses.append(nn.functional.cross_entropy(logits, target).item())
        if adapts:
            shares = logits.softmax(1)
            optimizer.zero_grad()
            (-shares * shares.log()).sum(1).mean().backward()
            optimizer.step()
    return sum(losses) / len(losses)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize(
    ("callback", "adapts"), [(PredictionTime(), False), (Tent(lr=0.05), True)], ids=["own", "tent"]
)
def test_the_measured_loss_is_that_of_a_loop_by_hand(callback, adapts):
    model = task(Batch())
    before = copy.deepcopy(model.state_dict())
    plain = measured(model)
    loss = measured(model, callback)
    assert loss == pytest.approx(by_hand(copy.deepcopy(model.network), adapts), rel=1e-4)
    assert loss != pytest.approx(plain, rel=1e-2)
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    assert measured(model) == plain
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("callback", [PredictionTime, Tent])
def test_an_own_layer_is_put_back_where_the_test_fails(callback):
    model = task(Ghost(size=4))
    before = copy.deepcopy(model.state_dict())
    data = shifted()
    data.tensors[0][-1] = float("nan")
    trainer = Trainer(callbacks=[callback()], accelerator="cpu", **QUIET)
    with pytest.raises(ValueError, match="NaN or inf"):
        trainer.test(model, DataLoader(data, SIZE), verbose=False)
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())


def test_entropy_is_that_of_the_formula():
    logits = torch.randn(5, 4, dtype=torch.float64)
    shares = logits.softmax(1)
    torch.testing.assert_close(entropy(logits), (-shares * shares.log()).sum(1))


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wine = ["model=net", "data=wine", "logger=none", "trainer=cpu", "trainer.max_epochs=1"]
    run(compose([*wine, "name=a"]))
    results = [
        run(compose(["action=test", "name=a", f"callbacks={name}"])) for name in ("none", "prediction_time", "tent")
    ]
    assert len({result.metrics["test/loss"] for result in results}) == 3
    with pytest.raises(ConfigError, match="Tent acts in action=test; leave it out of the training"):
        run(compose([*wine, "name=b", "callbacks=tent"]))
    run(compose([*wine[:1], "data=diabetes", *wine[2:], "name=c"]))
    with pytest.raises(ConfigError, match="callbacks=tent lowers the entropy of classes, and this data has none"):
        run(compose(["action=test", "name=c", "callbacks=tent"]))
