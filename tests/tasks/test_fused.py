"""SGD, Adam and AdamW step by one kernel for all parameters, unless something speaks against it."""

import pytest
import torch
from helpers.scaling import Scaled
from lightning import Callback
from torch import nn
from torch.optim import SGD, Adam, AdamW, RMSprop

from normlab import compose, run
from normlab.tasks.optimizers import fuse


class FusedSteps(Callback):
    """Notes whether a run's optimizer steps by its fused kernel."""

    def on_train_end(self, trainer, task):
        self.found = [group["fused"] for group in trainer.optimizers[0].param_groups]


@pytest.mark.parametrize(
    ("overrides", "is_scaled", "is_fused"),
    [
        ([], False, True),
        (["optimizer.fused=false"], False, False),
        (["optimizer=adamw", "trainer.gradient_clip_val=1", "trainer.precision=bf16-mixed"], False, True),
        (["optimizer=adamw", "trainer.gradient_clip_val=1"], True, True),  # Lightning itself would refuse this
        (["optimizer.fused=true", "trainer.gradient_clip_val=1"], True, True),
        (["+optimizer.foreach=true"], False, None),
        (["+optimizer.foreach=true"], True, None),
    ],
)
def test_of_a_run(tmp_path, overrides, is_scaled, is_fused):
    steps = FusedSteps()
    settings = ["model=net", "data=wine", "trainer=cpu", "trainer.max_epochs=1", "logger=none", "test=false"]
    run(compose([*settings, *overrides]), tmp_path, callbacks=[steps, *([Scaled()] if is_scaled else [])])
    assert {*steps.found} == {is_fused}


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        (SGD, {"momentum": 0.9, "maximize": True}),
        (Adam, {"amsgrad": True}),
        (AdamW, {"weight_decay": 0.1}),
    ],
)
def test_the_steps_are_those_of_torch_by_default(make, settings):
    def parameters(seed):
        random = torch.Generator().manual_seed(seed)
        return [torch.randn(shape, generator=random, dtype=torch.float64) for shape in [(3, 5), (7,), (2, 3, 3, 3)]]

    ours, theirs = nn.ParameterList(parameters(0)), nn.ParameterList(parameters(0))
    fused, plain = make(ours, lr=0.1, **settings), make(theirs, lr=0.1, foreach=False, **settings)
    fuse(fused, nn.Module())
    assert fused.param_groups[0]["fused"]
    for step in range(5):
        for one, other, gradient in [*zip(ours, theirs, parameters(step + 1), strict=True)][step < 2 :]:
            one.grad, other.grad = gradient.clone(), gradient.clone()  # the first has none before it is thawed
        fused.step()
        plain.step()
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_what_has_no_such_kernel_is_left_as_it_is():
    embedding = nn.Embedding(4, 3, sparse=True)
    for network, optimizer in [
        (embedding, SGD(embedding.parameters())),
        (nn.Linear(2, 2), SGD(nn.Linear(2, 2).parameters(), momentum=0.9, dampening=0.5)),
        (nn.Linear(2, 2), RMSprop(nn.Linear(2, 2).parameters())),
        (nn.Linear(2, 2), SGD(nn.Linear(2, 2, dtype=torch.complex64).parameters())),
        (nn.Linear(2, 2), SGD(nn.Linear(2, 2, device="meta").parameters())),
    ]:
        fuse(optimizer, network)
        assert not optimizer.param_groups[0].get("fused")
