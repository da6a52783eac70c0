"""What holds for every option of conf/norm, on inputs that nobody would think of; hypothesis makes them."""

import copy
import math
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cache

import pytest
import torch
from helpers.cases import options
from hydra.utils import get_object, instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from normlab.config.options import read_option
from normlab.norms.common.declaration import TORCH, declaration

NORMS = options("norm")
FEATURES = 8
# Ghost batches with remainders; renorm's corrections from the second batch on, or never
SETTINGS = {"ghost": {"size": 3}, "renorm": {"start": 1, "end": 2}}
BATCH_NORM = {"start": 9, "end": 9}
LAYOUTS = ("contiguous", "channels_last", "strided", "sliced", "expanded")

bounded = settings(derandomize=True, deadline=None, database=None, max_examples=15)
each_norm = pytest.mark.parametrize("name", NORMS)


@dataclass(frozen=True)
class Case:
    """A layer's spatial dimensions, an input's shape, and how its values lie and spread."""

    dims: int
    shape: tuple[int, ...]
    layout: str
    mean: float
    scale: float
    seed: int

    def input(self, dtype: torch.dtype = torch.float64) -> Tensor:
        random = torch.Generator().manual_seed(self.seed)
        shape = [2 * size for size in self.shape] if self.layout == "sliced" else list(self.shape)
        if self.layout == "expanded":
            shape[0] = 1
        x = (torch.randn(shape, generator=random, dtype=torch.float64) * self.scale + self.mean).to(dtype)
        if self.layout == "channels_last" and self.dims > 1:
            return x.to(memory_format=torch.channels_last if self.dims == 2 else torch.channels_last_3d)
        if self.layout == "strided":  # samples and channels the other way round
            return x.transpose(0, 1).contiguous().transpose(0, 1)
        if self.layout == "sliced":
            return x[tuple(slice(1, None, 2) for _ in shape)]
        return x.expand(self.shape) if self.layout == "expanded" else x


@st.composite
def cases(draw, smallest: int = 1, layouts=LAYOUTS):
    dims = draw(st.integers(0, 3))
    space = tuple(draw(st.integers(smallest, 4)) for _ in range(dims))
    return Case(
        dims,
        (draw(st.integers(smallest, 9)), FEATURES, *space),
        draw(st.sampled_from(layouts)),
        draw(st.sampled_from([0.0, -3.0, 1e4, 1e6])),
        draw(st.sampled_from([1.0, 0.0, 1e-3, 100.0])),
        draw(st.integers(0, 5)),
    )


@cache
def layers(name: str, corrected: bool = True) -> dict[int, nn.Module]:
    """The option's layers by spatial dimensions, with parameters drawn at random."""
    torch.manual_seed(0)
    option = instantiate(read_option("norm", name), **(SETTINGS if corrected else {"renorm": BATCH_NORM}).get(name, {}))
    found = {}
    for dims in range(4):
        with suppress(ValueError):
            found[dims] = option(FEATURES, dims)
            for parameter in found[dims].parameters():
                nn.init.normal_(parameter)
            for further in getattr(found[dims], "further", ()):  # sets of parameters: one shift for all of the batch
                own = found[dims].state_dict()
                further.load_state_dict({key: own[key] for key in further.state_dict()})
    assert found
    return found


def layer_of(name: str, dims: int, corrected: bool = True) -> nn.Module | None:
    """A new layer; None where the option has none for so many dimensions."""
    return copy.deepcopy(layers(name, corrected).get(dims))


def shift_free(name: str, dims: int) -> nn.Module | None:
    """A new layer that takes the mean off and adds nothing of it again, in float64; None where there is none."""
    layer = layer_of(name, dims, corrected=False)
    found = None if layer is None else declaration(layer)
    free = found is not None and found.axes and found.centred and not found.activation
    return layer.double() if layer is not None and free else None


def cancels(layer: nn.Module, case: Case) -> bool:
    """Whether torch's group norm takes E[x²] - μ², as it does in channels_last; test_norms.py shows it."""
    return isinstance(layer, nn.GroupNorm) and case.layout == "channels_last"


def too_small(layer: nn.Module, shape: tuple[int, ...]) -> bool:
    found = declaration(layer)
    values = None if found is None else found.values(shape)
    return found is not None and (shape[0] < found.samples or (values is not None and values <= found.dimension))


def trained(layer: nn.Module, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]] | None:
    """Output and gradients in training; None for a batch that the layer may refuse, and does."""
    x = x.detach().requires_grad_()
    try:
        y = layer(x)
    except ValueError:
        assert too_small(layer, tuple(x.shape)), "refuses what its declaration allows"
        return None
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    inputs = (x, *layer.parameters())  # a domain's parameters may not take part
    return y, torch.autograd.grad(y, inputs, upstream.to(y.dtype), allow_unused=True, materialize_grads=True)


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-6) -> None:
    """Relative to the largest number, from 1 on: what cancels leaves the roundings of what it was made of."""
    scale = max(1.0, theirs.detach().abs().max().item())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * scale)


def all_finite(*tensors: Tensor) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


@each_norm
@bounded
@given(case=cases())
def test_layout_changes_nothing_and_the_input_stays(name, case):
    if (layer := layer_of(name, case.dims)) is None:
        return
    if cancels(layer, case):
        return
    layer, x = layer.double(), case.input()
    plain, before = copy.deepcopy(layer), x.clone(memory_format=torch.contiguous_format)
    ours, theirs = trained(layer, x), trained(plain, before)
    assert torch.equal(x, before)
    assert (ours is None) == (theirs is None)
    if ours is None or theirs is None:
        return
    # A mean of 1e6 is rounded by up to 3.5e-8 of the standard deviation that eps leaves, and 576 values are added up.
    for a, b in zip((ours[0], *ours[1]), (theirs[0], *theirs[1]), strict=True):
        assert_close(a, b, tolerance=3.5e-8 * 576)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(layer.state_dict()[key], value, rtol=1e-10, atol=1e-10)
    assert_close(layer.eval()(x), plain.eval()(before))


@each_norm
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@bounded
@given(case=cases())
def test_finite_inputs_stay_finite(name, dtype, case):
    """Outputs, gradients and running statistics, with channels that do not vary and means that dwarf what varies."""
    if (layer := layer_of(name, case.dims)) is None:
        return
    x = case.input(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        for _ in range(3):  # the running statistics of the first take part in what comes after
            if (got := trained(layer, x)) is None:
                return
            assert got[0].shape == x.shape
            assert all_finite(got[0], *got[1])
        assert all_finite(layer.eval()(x))
    assert all_finite(*layer.buffers())
    assert all(buffer.dtype == torch.float32 for buffer in layer.buffers() if buffer.is_floating_point())


@each_norm
@bounded
@given(case=cases(layouts=("contiguous",)), constant=st.floats(-1e5, 1e5))
def test_a_centred_layer_gives_its_shift_for_a_constant_input(name, case, constant):
    if (layer := shift_free(name, case.dims)) is None or name == "batch_channel":  # it normalizes β_b of its batch norm
        return
    x = torch.full(case.shape, constant, dtype=torch.float64)
    if "channel" not in declaration(layer).axes and name != "switchable":  # one of its statistics is layer norm's
        x += torch.arange(FEATURES).view(1, -1, *[1] * case.dims)
    if (got := trained(layer, x)) is not None:
        shift = layer.bias.view(1, -1, *[1] * case.dims).expand(case.shape)
        # the mean of equal numbers is off by a rounding, which is then divided by √ε
        torch.testing.assert_close(got[0], shift, rtol=0, atol=1e-6)


@each_norm
@bounded
@given(case=cases(), constant=st.floats(-1e3, 1e3))
def test_a_centred_layer_does_not_see_a_constant_in_training(name, case, constant):
    if (layer := shift_free(name, case.dims)) is None:
        return
    if cancels(layer, case):
        return
    x = case.input()
    plain = trained(copy.deepcopy(layer), x)
    shifted = trained(layer, x + constant)
    assert (plain is None) == (shifted is None)
    if plain is not None and shifted is not None:
        assert_close(shifted[0], plain[0], 1e-5)


@each_norm
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@bounded
@given(case=cases(smallest=0, layouts=("contiguous",)))
def test_an_empty_input_is_refused_or_gives_an_empty_output(name, train, case):
    layer, x = layer_of(name, case.dims), case.input(torch.float32)
    if layer is None or x.numel():
        return
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    theirs = (RuntimeError, IndexError) if isinstance(layer, tuple(TORCH)) else ()
    refused = ""
    try:
        assert layer.train(train)(x).shape == x.shape
    except (ValueError, *theirs) as error:
        refused = str(error)
    assert not refused or theirs or f"norm={name}: got" in refused
    for key, value in layer.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, before[key]), key


@each_norm
@bounded
@given(case=cases(), wrong=st.sampled_from(["integers", "rank above", "rank below", "features"]), train=st.booleans())
def test_wrong_inputs_are_refused_by_name(name, case, wrong, train):
    """torch's own layers say it in their words where they do; group norm takes any rank."""
    layer, x = layer_of(name, case.dims), case.input(torch.float32)
    if layer is None or isinstance(layer, (*TORCH, nn.Identity)):
        return
    x = {
        "integers": x.long(),
        "rank above": x.unsqueeze(-1),
        "rank below": x[:, 0] if case.dims == 0 else x[..., 0],
        "features": x[:, 1:],
    }[wrong]
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    with pytest.raises(ValueError, match=f"norm={name}: got"):
        layer.train(train)(x)
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


OUTSIDE = {
    "momentum": st.floats(max_value=0, exclude_max=True) | st.floats(min_value=1, exclude_min=True) | st.just(math.nan),
    "eps": st.floats(max_value=0) | st.sampled_from([math.nan, math.inf]),
    "size": st.integers(max_value=0),
    "r_max": st.floats(max_value=1, exclude_max=True) | st.sampled_from([math.nan, math.inf]),
    "d_max": st.floats(max_value=0, exclude_max=True) | st.sampled_from([math.nan, math.inf]),
}


def option_keys() -> list[tuple[str, str]]:
    kinds = {name: get_object(read_option("norm", name)["_target_"]) for name in NORMS}
    found = [(name, key) for name, kind in kinds.items() for key in OUTSIDE if key in {f.name for f in fields(kind)}]
    assert {key for _, key in found} == set(OUTSIDE)
    return found


@pytest.mark.parametrize(("name", "key"), option_keys())
@bounded
@given(data=st.data())
def test_values_out_of_range_are_refused_when_the_option_is_made(name, key, data):
    value = data.draw(OUTSIDE[key])
    with pytest.raises(ValueError, match=f"norm={name}: {key}="):
        get_object(read_option("norm", name)["_target_"])(**{key: value})
