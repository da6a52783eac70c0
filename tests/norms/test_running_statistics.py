"""What running statistics converge to in small batches of independent N(0, 1), and what evaluation makes of them."""

from typing import Any

import pytest
import torch
from helpers.cases import options, rest_slow
from hydra.utils import instantiate
from scipy.integrate import quad
from scipy.stats import chi2
from torch import nn

from normlab.config.options import read_option
from normlab.norms.common.declaration import declaration
from normlab.norms.cross_iteration import CrossIteration

CHANNELS, BATCHES = 2048, 100
EPS = 0.1  # it is large, because 1 / σ of two values varies without bounds
KEYS: dict[str, dict[str, Any]] = {
    "cross_iteration": {"start": 0},
    "evonorm_b0": {"momentum": 0.1},
    "ghost": {"size": 2},
    "mabn": {"momentum": 0.1, "average_from": 0},
    "renorm": {"start": 0, "end": 1},
    "whitening": {"group_size": 1},
}
VARIANCES = ("running_var", "running_square")


def option(name: str) -> Any:
    momentum = {"momentum": None}  # the average of all batches
    return instantiate(read_option("norm", name), **{"eps": EPS} | momentum | KEYS.get(name, {}))


def keeps_statistics(name: str) -> bool:
    layer = instantiate(read_option("norm", name))(16, 2)
    found = declaration(layer)
    kept = any(key.startswith("running_") for key, _ in layer.named_buffers())
    return found is not None and found.batch_stats and kept


NORMS = [name for name in options("norm") if keeps_statistics(name)]


def shapes(name: str, values: int) -> list[tuple[int, ...]]:
    """Batches in which a channel, or a part of one, has so many values, over samples or over space."""
    parts = 2 if name == "split" else 1
    over_samples = (parts * values, CHANNELS, 1, 1)
    return [over_samples] if name in ("split", "ghost") else [over_samples, (1, CHANNELS, values, 1)]


def trained(name: str, shape: tuple[int, ...]) -> nn.Module:
    """The layer after `BATCHES` batches; channels are alike, and each gets the mean of all for its statistics."""
    torch.manual_seed(0)
    norm = option(name)
    before = layer_before(norm) if name == "cross_iteration" else nn.Identity()
    layer = norm(CHANNELS, 2)
    running = {key: buffer for key, buffer in layer.named_buffers() if key.startswith("running_")}
    for key in running.keys() & set(VARIANCES):
        running[key].fill_(9.0)  # far from where it is to go
    with torch.no_grad():
        for _ in range(BATCHES):
            layer(before(torch.randn(shape)))
    for buffer in running.values():
        buffer.copy_(buffer.mean(0, keepdim=True).expand_as(buffer))
    return layer


def layer_before(norm: CrossIteration) -> nn.Module:
    """One that changes nothing and does not move; derivatives by its weight, which take long, then do not count."""
    before: Any = norm.conv2d(CHANNELS, CHANNELS, 1, groups=CHANNELS, bias=False)
    before._conv_forward = lambda input, *_: input.clone()
    before.weight_gradient = lambda *_: torch.zeros_like(before.weight)
    return before


def expected_root(values: int) -> float:
    """E[(s² + ε)^-½] of the biased variance s² of so many independent N(0, 1); M s² is χ² with M - 1 degrees."""
    return quad(lambda t: (t * t / values + EPS) ** -0.5 * chi2.pdf(t * t, values - 1) * 2 * t, 0, 20)[0]


@pytest.mark.parametrize("values", rest_slow([2, 4, 16], lambda case: case[0] == 4))
@pytest.mark.parametrize("name", NORMS)
def test_running_statistics_converge_to_the_truth(name, values):
    for shape in shapes(name, values):
        layer = trained(name, shape)
        found = {key: buffer.mean().item() for key, buffer in layer.named_buffers() if key.startswith("running_")}
        assert abs(found.pop("running_mean", 0.0)) <= 0.02
        if "running_whitening" in found:
            expected = expected_root(values)
            assert found == {"running_whitening": pytest.approx(expected, rel=0.02)}
        else:
            expected = (1 + EPS) ** -0.5
            if name == "batch_channel":  # it has group norm on top
                expected = (expected**2 / (expected**2 + EPS)) ** 0.5
            (variance,) = found.values()
            assert variance == pytest.approx(1, abs=0.02), shape
        assert evaluated(name, layer) == pytest.approx(expected**2, rel=0.02), shape


def evaluated(name: str, layer: Any) -> float:
    """The variance of the output of evaluation, of what is left of it by the running statistics alone."""
    layer.eval()
    if name == "switchable":
        for logits in (layer.mean_weight, layer.var_weight):
            nn.init.constant_(logits, -1e3)
            nn.init.constant_(logits[2:], 1e3)
    if name == "evonorm_b0":
        nn.init.zeros_(layer.v)
    with torch.no_grad():
        y = layer(torch.randn(32, CHANNELS, 1, 1))
    return y.var().item()
