"""Train and eval modes are the trainer's: statistics move in training steps only, and who interferes is found."""

import contextlib

import pytest
import torch
from lightning import Callback
from torch import nn

from normlab.config.compose import compose
from normlab.norms.common.probe import evaluating
from normlab.runner.build import build

QUICK = ["model=my_model", "data.size=8", "data.batch_size=200", "trainer.max_epochs=2", "logger=none"]


def parts_of(tmp_path, *overrides: str):
    (tmp_path / "checkpoints").mkdir(exist_ok=True)
    return build(compose([*QUICK, *overrides]), tmp_path)


def spy_on(parts) -> list[tuple[str, bool, int]]:
    """Records, at every hook that Lightning calls, the mode of bn1 and how often its statistics moved."""
    seen: list[tuple[str, bool, int]] = []
    layer = parts.task.network.bn1

    def hook(name):
        return lambda self, *args, **kwargs: seen.append((name, layer.training, int(layer.num_batches_tracked)))

    names = [name for name in dir(Callback) if name.startswith("on_") and "checkpoint" not in name]
    assert "on_validation_batch_start" in names
    spy = type("Spy", (Callback,), {name: hook(name) for name in names})()
    parts.trainer.callbacks.insert(0, spy)
    return seen


def test_statistics_move_in_training_steps_only(tmp_path):
    parts = parts_of(tmp_path)
    seen = spy_on(parts)
    parts.trainer.fit(parts.task, datamodule=parts.loaders)
    parts.trainer.test(parts.task, datamodule=parts.loaders, verbose=False)
    names = {name for name, _, _ in seen}
    assert {"on_sanity_check_start", "on_validation_batch_end", "on_test_batch_end", "on_train_batch_end"} <= names
    steps = 0
    for name, training, moved in seen:
        if name == "on_before_zero_grad":  # the first hook after a training step's forward
            steps += 1
        assert moved == steps, name
        if name in ("on_validation_batch_start", "on_validation_batch_end", "on_test_batch_start", "on_test_batch_end"):
            assert not training, name
        if name in ("on_train_batch_start", "on_train_batch_end", "on_before_backward", "on_train_epoch_end"):
            assert training, name
    assert steps == parts.trainer.global_step == 2 * len(parts.data.train_dataloader())


@pytest.mark.filterwarnings("ignore:Found 1 module")  # Lightning says that a submodule is frozen
def test_a_frozen_submodule_stays_frozen(tmp_path):
    parts = parts_of(tmp_path)
    parts.task.network.bn1.eval()
    parts.trainer.fit(parts.task, datamodule=parts.loaders)
    assert not parts.task.network.bn1.training
    assert int(parts.task.network.bn1.num_batches_tracked) == 0
    assert int(parts.task.network.bn2.num_batches_tracked) == parts.trainer.global_step


class Calls(Callback):
    """Calls .train() or .eval() in one hook, as a person's code might."""

    def __init__(self, hook: str, action):
        setattr(self, hook, lambda trainer, task, *args: action(task))


@pytest.mark.parametrize(
    "hook", ["on_validation_start", "on_validation_epoch_start", "on_validation_batch_start", "on_validation_batch_end"]
)
def test_train_mode_during_validation_is_found(tmp_path, hook):
    parts = parts_of(tmp_path)
    parts.trainer.callbacks.insert(0, Calls(hook, lambda task: task.train()))
    with pytest.raises(RuntimeError, match=r"train mode during evaluation.*\.train\(\)"):
        parts.trainer.fit(parts.task, datamodule=parts.loaders)


def test_train_mode_during_test_is_found(tmp_path):
    parts = parts_of(tmp_path)
    parts.trainer.callbacks.insert(0, Calls("on_test_epoch_start", lambda task: task.network.bn1.train()))
    with pytest.raises(RuntimeError, match=r"network.bn1 is in train mode during evaluation"):
        parts.trainer.test(parts.task, datamodule=parts.loaders)


@pytest.mark.filterwarnings("ignore:Found 1 module")
@pytest.mark.parametrize("hook", ["on_train_epoch_start", "on_train_batch_start"])
def test_unfreezing_by_a_stray_train_is_found(tmp_path, hook):
    parts = parts_of(tmp_path)
    parts.task.network.bn1.eval()
    parts.trainer.callbacks.insert(0, Calls(hook, lambda task: task.train()))
    with pytest.raises(RuntimeError, match=r"network.bn1 was frozen.*\.train\(\)"):
        parts.trainer.fit(parts.task, datamodule=parts.loaders)
    assert int(parts.task.network.bn1.num_batches_tracked) == 0


def test_a_stray_eval_during_training_is_found(tmp_path):
    parts = parts_of(tmp_path)
    parts.trainer.callbacks.insert(0, Calls("on_train_epoch_start", lambda task: task.eval()))
    with pytest.raises(RuntimeError, match=r"eval mode during training.*\.eval\(\)"):
        parts.trainer.fit(parts.task, datamodule=parts.loaders)


def test_evaluating_puts_every_mode_back():
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Sequential(nn.Dropout(), nn.Linear(3, 3)))
    network[0].eval()
    network[1][0].train()
    modes = [module.training for module in network.modules()]
    with contextlib.suppress(KeyError), evaluating(network):
        assert not any(module.training for module in network.modules())
        raise KeyError
    assert [module.training for module in network.modules()] == modes


def test_building_leaves_statistics_and_modes_alone(tmp_path):
    network = parts_of(tmp_path).task.network
    assert all(module.training for module in network.modules())
    assert torch.equal(network.bn1.running_mean, torch.zeros(64))
    assert int(network.bn1.num_batches_tracked) == 0
