"""channels_last=auto: 16 bits, convolutions, and norms that have a kernel for that layout on the device."""

import pytest
import torch
from helpers.cases import options
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from normlab import compose
from normlab.config.instantiate import make_node
from normlab.config.options import read_option
from normlab.models.mynet import MyNet
from normlab.norms.common.declaration import declaration
from normlab.runner.build import uses_channels_last

# What torch runs on CUDA for contiguous tensors alone (ATen/native/group_norm.cpp, Normalization.cpp, torch 2.15)
CONTIGUOUS_KERNELS = {"native_group_norm", "instance_norm"}


def layer_of(option: str) -> nn.Module:
    return make_node(read_option("norm", option), "norm")(12, 2)


class Kernels(TorchDispatchMode):
    """Notes which kernels run."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("option", options("norm"))
def test_layers_that_run_such_kernels_say_so(option, monkeypatch):
    layer, called = layer_of(option), []
    instance_norm = nn.functional.instance_norm  # it becomes a batch norm before it reaches a kernel
    monkeypatch.setattr(nn.functional, "instance_norm", lambda *a, **k: called.append(1) or instance_norm(*a, **k))
    with Kernels() as kernels, torch.no_grad():
        layer(torch.randn(16, 12, 6, 5).to(memory_format=torch.channels_last))
    declared = declaration(layer)
    copies = bool(kernels.found & CONTIGUOUS_KERNELS or called)
    assert copies == (declared is not None and "cuda" in declared.contiguous_on)


@pytest.mark.parametrize("option", ["batch", "renorm", "group", "layer", "instance", "weight_std", "batch_channel"])
def test_auto_asks_the_norm_and_the_device(option):
    network = MyNet(make_node(read_option("norm", option), "norm"), (3, 8, 8), 10)
    copies = option not in ("batch", "renorm")
    for precision in ("bf16-mixed", "16-mixed", "bf16-true"):
        config = compose([f"norm={option}", f"trainer.precision={precision}"])
        assert uses_channels_last(config, network, "cuda") is not copies
        assert uses_channels_last(config, network, "cpu")
    assert not uses_channels_last(compose([f"norm={option}"]), network, "cuda")
    for typed in (True, False):
        config = compose([f"norm={option}", "trainer.precision=bf16-mixed", f"channels_last={typed}".lower()])
        assert uses_channels_last(config, network, "cuda") is typed
