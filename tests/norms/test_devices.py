"""Every norm gives on a GPU what it gives on the CPU. Each test runs on the CPU too, which shows that it is right."""

import pytest
import torch
from helpers.cases import options
from hydra.utils import instantiate
from torch import nn

from normlab.config.options import read_option

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
FLOAT32, BFLOAT16 = 1e-4, 0.1  # how far off a tensor may be, of its size; the CPU's own are 1.2e-5 and 0.043 at most

pytestmark = pytest.mark.parametrize("device", DEVICES)


KEYS = {"renorm": {"start": 0, "end": 1}, "mabn": {"start": 0}}  # bounds that are open


def layer_of(option: str) -> nn.Module:
    torch.manual_seed(0)
    layer = instantiate(read_option("norm", option), **KEYS.get(option, {}))(12, 2).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


def batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(16, 12, 6, 5, generator=generator).bfloat16().double() * 2 + step for step in (1, 2)]


def trained(layer: nn.Module, like: torch.Tensor, layout: torch.memory_format = torch.contiguous_format) -> dict:
    """Outputs, gradients and state of two training steps, and the output of evaluation; in the type of `like`."""
    found: dict = {}
    for step, batch in enumerate(batches()):
        x = batch.to(like, copy=True, memory_format=layout).requires_grad_()
        y = layer(x)
        y.backward(batch.to(y).sin())
        found[f"y{step}"], found[f"x{step}"] = y, x.grad
    found |= {f"of {name}": parameter.grad for name, parameter in layer.named_parameters()}
    found |= layer.state_dict()
    found["evaluated"] = layer.eval()(x)
    return {name: value.detach().double().cpu() for name, value in found.items() if value is not None}


def check(found: dict, expected: dict, tolerance: float) -> None:
    """Compares whole tensors: of a single value close to a threshold, as FRN has one, rounding may take all."""
    assert found.keys() == expected.keys()
    off = {name: ((found[name] - value).norm() / value.norm().clamp(min=1)).item() for name, value in expected.items()}
    assert {name: value for name, value in off.items() if not value <= tolerance} == {}


@pytest.fixture(scope="module")
def expected() -> dict[str, dict]:
    """What the CPU gives in float64."""
    return {option: trained(layer_of(option), torch.zeros((), dtype=torch.float64)) for option in options("norm")}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("option", options("norm"))
def test_float32(device, option, layout, expected):
    found = trained(layer_of(option).float().to(device), torch.zeros((), device=device), LAYOUTS[layout])
    check(found, expected[option], FLOAT32)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("option", options("norm"))
def test_bfloat16_under_autocast(device, option, layout, expected):
    like = torch.zeros((), dtype=torch.bfloat16, device=device)
    with torch.autocast(device, torch.bfloat16):
        found = trained(layer_of(option).float().to(device), like, LAYOUTS[layout])
    check(found, expected[option], BFLOAT16)


@pytest.mark.slow
@pytest.mark.parametrize("option", options("norm"))
def test_compiled(device, option, expected):
    torch.compiler.reset()  # a layer's code is compiled a few times only
    layer = layer_of(option).float().to(device)
    layer.compile(backend="aot_eager", fullgraph=True)
    check(trained(layer, torch.zeros((), device=device)), expected[option], FLOAT32)
