"""The scaler of 16-mixed steps as torch's does, which reads every step and never sees those that are left out."""

import math

import pytest
import torch
from torch.amp import GradScaler
from torch.optim import SGD, AdamW, RMSprop

from normlab.tasks.gate import make_gate
from normlab.tasks.optimizers import fuse
from normlab.tasks.scaler import Scaler

LEFT_OUT = math.nan
SCALE = 2.0**15
STEPS = 40


def gradients(seed):
    """Of 40 steps: some overflow in float16, some are of a batch that is to be left out."""
    random = torch.Generator().manual_seed(seed)
    for value in torch.randn(STEPS, 3, generator=random):
        kind = torch.randint(4, (), generator=random)
        yield value * {0: 1e6, 1: LEFT_OUT}.get(int(kind), 1e-3)


def step(parameter, optimizer, scaler, gradient):
    parameter.grad = (scaler.scale(gradient)).half().float()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()


def made(scaler, growth_interval=2):
    scaler.set_growth_interval(growth_interval)
    scaler._init_scale = SCALE
    return scaler


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "make",
    [
        lambda p: SGD(p, 0.1, momentum=0.9, nesterov=True),
        lambda p: SGD(p, 0.1, fused=True),
        lambda p: AdamW(p, 0.1, fused=True),
    ],
)
def test_the_steps_are_those_of_torch_without_what_is_left_out(make, seed):
    ours, theirs = (torch.ones(3, requires_grad=True) for _ in range(2))
    gated, plain = make([ours]), make([theirs])
    plain.param_groups[0]["fused"] = False
    plain._step_supports_amp_scaling = False
    fuse(gated, torch.nn.Module())
    gate = make_gate([gated], ours.device)
    scaler, reference = made(Scaler("cpu")), made(GradScaler("cpu"))
    kinds = set()
    for gradient in gradients(seed):
        left_out = gradient.isnan().any()
        gate.leave_out(left_out)
        gate.before_step()
        step(ours, gated, scaler, gradient)
        if not left_out:
            step(theirs, plain, reference, gradient)
            assert scaler.state_dict() == reference.state_dict()
        kinds.add("left out" if left_out else scaler.get_scale() < SCALE)
        torch.testing.assert_close(ours, theirs)
    assert kinds == {"left out", True, False}


def test_an_optimizer_without_a_flag_steps_as_under_torch():
    ours, theirs = (torch.ones(3, requires_grad=True) for _ in range(2))
    one, other = RMSprop([ours], 0.1), RMSprop([theirs], 0.1)
    scaler, reference = made(Scaler("cpu")), made(GradScaler("cpu"))
    for gradient in gradients(0):
        step(ours, one, scaler, gradient)
        step(theirs, other, reference, gradient)
        assert scaler.state_dict() == reference.state_dict()
        assert torch.equal(ours, theirs)
