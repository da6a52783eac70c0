"""How exact gradients are: against float64 on the same, rounded input, and against torch's own kernels."""

import copy
from functools import cache, partial

import pytest
import torch
from helpers.cases import options
from hydra.utils import instantiate
from torch import Tensor, nn

from normlab.config.options import read_option
from normlab.norms.common.declaration import TORCH, declaration
from normlab.norms.common.synchronise import Synchronise

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
RATIOS = [0, 5, 20, 100]  # the ratio of mean and σ
SIXTEEN_BITS = [torch.bfloat16, torch.float16]
KEYS = {"renorm": {"start": 0, "end": 1}}  # bounds that are open


class ChannelsRMSNorm(nn.RMSNorm):
    """torch's, over the channels of (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def layer_of(name: str) -> nn.Module:
    return drawn(partial(instantiate(read_option("norm", name), **KEYS.get(name, {})), dims=2))


def drawn(make) -> nn.Module:
    """`make(16)` with weights and shifts drawn at random."""
    torch.manual_seed(0)
    layer = make(16)
    for key, parameter in layer.named_parameters():
        nn.init.normal_(parameter, mean=float(key.endswith("weight")), std=0.3)
    return layer


def nearest(layer: nn.Module) -> str:
    """Which of torch's layers has its statistics over the same axes."""
    found = declaration(layer)
    assert found is not None
    return "batch" if found.batch_stats else "group" if found.centred else "rms"


NEAREST = {
    "batch": nn.BatchNorm2d,
    "group": partial(nn.GroupNorm, 4),
    "rms": partial(ChannelsRMSNorm, elementwise_affine=False),
}


@cache
def of_torch(kind: str, ratio: float, dtype: torch.dtype) -> float:
    """How far dx of torch's layer is off, of a contiguous input."""
    return errors(drawn(NEAREST[kind]), ratio, dtype, torch.contiguous_format)["x"]


NORMS = [name for name in options("norm") if not isinstance(layer_of(name), nn.Identity)]
OWN = [name for name in NORMS if not isinstance(layer_of(name), tuple(TORCH))]
SYNCHRONISABLE = [name for name in NORMS if (found := declaration(layer_of(name))) and found.synchronisable]


def batch(ratio: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """An input and a gradient of its output that is not at right angles to it, so that terms cancel, as float64."""
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 8, 16, 8, 8, generator=generator, dtype=torch.float64)
    return (x + ratio).to(dtype).double(), (noise + 3 * x + 3).to(dtype).double()


def gradients(layer: nn.Module, x: Tensor, upstream: Tensor, dtype: torch.dtype, layout: torch.memory_format) -> dict:
    layer = copy.deepcopy(layer)
    x = x.to(dtype, copy=True, memory_format=layout).requires_grad_()
    layer(x).backward(upstream.to(dtype))
    found = {"x": x.grad} | {key: parameter.grad for key, parameter in layer.named_parameters()}
    return {key: gradient.double() for key, gradient in found.items() if gradient is not None}


def errors(layer: nn.Module, ratio: float, dtype: torch.dtype, layout: torch.memory_format) -> dict[str, float]:
    """How far each gradient is from that of float64, of its size; a parameter's is a sum over 512 values."""
    x, upstream = batch(ratio, dtype)
    exact = gradients(copy.deepcopy(layer).double(), x, upstream, torch.float64, layout)
    found = gradients(layer, x, upstream, dtype, layout)
    assert found.keys() == exact.keys()
    sizes = {key: value.norm().clamp(min=0 if key == "x" else 100) for key, value in exact.items()}
    return {key: ((found[key] - value).norm() / sizes[key]).item() for key, value in exact.items()}


def check(layer: nn.Module, dtype: torch.dtype, layout: torch.memory_format) -> None:
    """dx as exact as torch's, and the parameters' gradients, which are of 32 bits, more exact than 16 bits can be."""
    for ratio in RATIOS:
        found = errors(layer, ratio, dtype, layout)
        torchs = of_torch(nearest(layer), ratio, dtype)
        assert found.pop("x") <= 1.5 * torchs, f"mean / σ = {ratio}"
        assert all(error <= 0.2 * torchs for error in found.values()), f"mean / σ = {ratio}: {found}"


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
@pytest.mark.parametrize("name", OWN)
def test_gradients_of_16_bits_are_as_exact_as_torchs(name, dtype, layout):
    check(layer_of(name), dtype, layout)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("name", SYNCHRONISABLE)
def test_gradients_of_16_bits_are_as_exact_where_synchronised(name, layout, of_several):
    layer = Synchronise().apply(layer_of(name))
    assert layer.joint
    check(layer, torch.bfloat16, layout)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("name", OWN)
def test_scaled_gradients_of_float16_stay_finite(name, layout):
    """Products of 16 bits would not: loss scaling makes gradients of thousands."""
    generator = torch.Generator().manual_seed(0)
    x, upstream = torch.randn(2, 8, 16, 4, 4, generator=generator, dtype=torch.float64)
    found = gradients(layer_of(name), x + 20, 2000 * upstream, torch.float16, layout)
    assert all(bool(torch.isfinite(gradient).all()) for gradient in found.values())


@pytest.mark.parametrize("ratio", [1, 100, 1000])
def test_batch_fasts_gradient_of_its_weight_is_as_exact_as_it_says(ratio):
    assert errors(layer_of("batch_fast"), ratio, torch.float32, torch.contiguous_format)["weight"] <= 5e-7 * ratio
