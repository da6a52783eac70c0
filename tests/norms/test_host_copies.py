"""A training step copies no Python numbers to the device, and reads none from it: on a GPU each would make it wait."""

from typing import Any

import pytest
import torch
from helpers.cases import options
from hydra.utils import instantiate
from torch import nn
from torch.overrides import TorchFunctionMode, resolve_name

from normlab.config.options import read_option
from normlab.norms.common.declaration import declaration
from normlab.norms.common.synchronise import Synchronise

WAITING = {  # what torch calls that make a tensor of Python data, and those that read a tensor's values
    *("torch.tensor", "torch.as_tensor", "torch.Tensor.new_tensor", "torch.from_numpy"),
    *("torch.Tensor.item", "torch.Tensor.tolist", "torch.Tensor.numpy", "torch.Tensor.nonzero", "torch.nonzero"),
    *(f"torch.Tensor.__{name}__" for name in ("bool", "int", "float", "index", "contains")),
}


class Watch(TorchFunctionMode):
    """Notes the calls of a thread that a GPU would wait for; the backward pass runs in the same."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = resolve_name(func) or getattr(func, "__name__", "")
        by_list = name == "torch.Tensor.__getitem__" and isinstance(args[1], list)
        if name in WAITING or f"torch.{name}" in WAITING or by_list:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def waits(layer: nn.Module, device: str = "cpu") -> list[str]:
    """What a second step waits for; 13 samples leave a rest of every ghost and split batch."""
    batches = torch.randn(2, 13, 16, 4, 4, device=device)
    layer(batches[0].requires_grad_()).sum().backward()
    with Watch() as watch:
        layer(batches[1].clone().requires_grad_()).sum().backward()
    return watch.found


@pytest.mark.parametrize("name", options("norm"))
def test_of_a_layer(name):
    assert waits(instantiate(read_option("norm", name))(16, 2)) == []


@pytest.mark.parametrize("name", options("norm"))
def test_of_a_synchronised_layer(name, of_several):
    layer = instantiate(read_option("norm", name))(16, 2)
    found = declaration(layer)
    if found is not None and found.synchronisable:
        assert waits(Synchronise().apply(layer)) == []


def test_the_watch_sees_what_waits():
    x = torch.arange(3.0)
    for call in (
        lambda: torch.tensor([1.0], device="cpu"),
        lambda: x.new_tensor([1.0]),
        lambda: bool(x[0] > 0),
        lambda: x.sum().item(),
        lambda: float(x[1]),
        lambda: x[[0, 2]],
    ):
        with Watch() as watch:
            call()
        assert watch.found


@pytest.mark.gpu
@pytest.mark.parametrize("name", options("norm"))
def test_a_gpu_does_not_wait(name):
    layer = instantiate(read_option("norm", name))(16, 2).cuda()
    layer(torch.randn(13, 16, 4, 4, device="cuda", requires_grad=True)).sum().backward()
    x = torch.randn(13, 16, 4, 4, device="cuda", requires_grad=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        layer(x).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
