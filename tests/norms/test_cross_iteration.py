"""Cross-iteration batch norm against its paper's formulas, with derivatives by autograd, and against batch norm."""

import copy
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from normlab.models.resnet import ResNet
from normlab.norms.cross_iteration import CrossIteration

SHAPES = {"conv2d": (4, 3, 7, 6), "linear": (5, 3)}
LAYERS = {"conv2d": (3, 6, 3), "linear": (3, 6)}


def pair(kind: str, **keys):
    torch.manual_seed(0)
    option = CrossIteration(**keys)
    before = getattr(option, kind)(*LAYERS[kind]).double()
    norm = option(6, dims=2 if kind == "conv2d" else 0).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return before, norm


def move(layer: nn.Module, seed: int) -> None:
    """A step of an optimizer."""
    torch.manual_seed(seed)
    with torch.no_grad():
        layer.weight.add_(torch.randn(layer.weight.shape, dtype=torch.float64).to(layer.weight), alpha=0.05)


class Plainly:
    """The paper's equations 5 to 9, with E[x²] as ν."""

    def __init__(self, window: int):
        self.window, self.past = window, []

    def __call__(self, x, kept, weight, gamma, beta):
        """`x` made from `weight`, whose graph is kept; the normalised output."""
        axes, shape = (0, *range(2, x.ndim)), (1, -1, *[1] * (x.ndim - 2))
        mu, nu = x.mean(axes), (x**2).mean(axes)
        d_mu, d_nu = (torch.autograd.grad(s.sum(), kept, retain_graph=True)[0] for s in (mu, nu))
        mus, nus = [mu], [nu]
        for old_mu, old_nu, old_d_mu, old_d_nu, old_weight in self.past[: self.window - 1]:
            change = (weight - old_weight).detach()
            mus.append(old_mu + (old_d_mu * change).flatten(1).sum(1))
            nus.append(old_nu + (old_d_nu * change).flatten(1).sum(1))
        mean = torch.stack(mus).mean(0)
        nu_bar = torch.stack([torch.maximum(n, m**2) for n, m in zip(nus, mus, strict=True)]).mean(0)
        std = (nu_bar - mean**2 + 1e-5) ** 0.5
        self.past.insert(0, tuple(t.detach().clone() for t in (mu, nu, d_mu, d_nu, weight)))
        return (x - mean.view(shape)) / std.view(shape) * gamma.view(shape) + beta.view(shape)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kind", SHAPES)
def test_outputs_and_gradients_over_batches_follow_the_paper(kind, channels_last):
    before, norm = pair(kind, window=3, start=0)
    plainly = Plainly(window=3)
    function = F.conv2d if kind == "conv2d" else F.linear
    for step in range(6):
        torch.manual_seed(step)
        h = torch.randn(SHAPES[kind], dtype=torch.float64) + step
        if channels_last and kind == "conv2d":
            h = h.to(memory_format=torch.channels_last)
        x = function(h, before.weight, before.bias)
        expected = plainly(x, before.weight, before.weight, norm.weight, norm.bias)
        got = norm(before(h))
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)
        inputs, upstream = (before.weight, norm.weight, norm.bias), torch.randn_like(got)
        got, wanted = (torch.autograd.grad(y, inputs, upstream) for y in (got, expected))
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)
        move(before, step)


@pytest.mark.parametrize("keys", [{"window": 1, "start": 0}, {"start": 100}])
@pytest.mark.parametrize("kind", SHAPES)
def test_with_a_window_of_one_and_before_its_start_it_is_batch_norm(kind, keys):
    before, norm = pair(kind, **keys)
    reference = (nn.BatchNorm2d if kind == "conv2d" else nn.BatchNorm1d)(6).double()
    reference.weight, reference.bias = norm.weight, norm.bias
    for step in range(4):
        x = before(torch.randn(SHAPES[kind], dtype=torch.float64))
        torch.testing.assert_close(norm(x), reference(x), rtol=0, atol=1e-10)
        move(before, step)
    for key, value in reference.state_dict().items():
        torch.testing.assert_close(norm.state_dict()[key], value, rtol=0, atol=1e-10)


def test_a_large_mean_does_not_cancel_over_iterations():
    results = []
    for dtype in (torch.float64, torch.float32):
        before, norm = pair("linear", start=0)
        before.to(dtype), norm.to(dtype)
        nn.init.constant_(before.bias, 1e4)
        for step in range(4):
            torch.manual_seed(step)
            y = norm(before(torch.randn(64, 3, dtype=torch.float64).to(dtype)))
            move(before, step)
        results.append(y.double())
    torch.testing.assert_close(*results, rtol=0.01, atol=0.02)


def test_every_norm_of_a_network_follows_the_convolution_made_before_it():
    network = ResNet(CrossIteration(), (3, 8, 8), 10)
    sources = [layer.source[0] for layer in network.modules() if hasattr(layer, "source")]
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(sources) == 7
    assert all(source in convolutions for source in sources)
    copied = copy.deepcopy(network)
    assert copied.blocks[0].bn2.source[0] is copied.blocks[0].conv1


def test_the_link_keeps_no_batch_and_no_second_copy_of_the_weight():
    before, norm = pair("conv2d", start=0)
    x = torch.randn(SHAPES["conv2d"], dtype=torch.float64)
    kept = weakref.ref(x)
    norm(before(x)).sum().backward()
    del x
    assert kept() is None
    assert [name for name, _ in norm.named_parameters()] == ["weight", "bias"]
    nn.Conv2d(3, 6, 3).load_state_dict(before.state_dict())


def test_a_second_norm_behind_no_layer_of_its_own_is_batch_norm():
    option = CrossIteration(start=0)
    before, first, second = option.conv2d(3, 6, 3).double(), option(6, 2).double(), option(6, 2).double()
    reference = nn.BatchNorm2d(6).double()
    for step in range(3):
        torch.manual_seed(step)
        x = torch.relu(first(before(torch.randn(SHAPES["conv2d"], dtype=torch.float64))))
        torch.testing.assert_close(second(x), reference(x), rtol=0, atol=1e-10)
        move(before, step)


def test_a_layer_may_run_twice_before_its_norm_does():
    """It is as if norm and layer ran in turns."""
    (before, norm), (again, plain) = pair("conv2d", start=0), pair("conv2d", start=0)
    for step in range(3):
        torch.manual_seed(step)
        a, b = torch.randn(2, 4, 3, 7, 6, dtype=torch.float64)
        of_a, of_b = before(a), before(b)
        found, expected = [norm(of_a), norm(of_b)], [plain(again(a)), plain(again(b))]
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        move(before, step)
        move(again, step)


def test_a_norm_made_behind_another_layer_than_it_stands_behind_is_refused():
    option = CrossIteration(start=0)
    convs = [option.conv2d(3, 3, 3, padding=1) for _ in range(2)]
    norm = option(3, 2)
    with pytest.raises(ValueError, match="make each norm right after the layer that it follows"):
        norm(convs[0](convs[1](torch.randn(4, 3, 5, 5))))


def test_a_pool_between_convolution_and_norm_is_refused():
    norm = CrossIteration()
    network = nn.Sequential(norm.conv2d(2, 3, 3), nn.MaxPool2d(2), norm.layer(3, 2))
    with pytest.raises(ValueError, match="make each norm right after the layer that it follows"):
        network(torch.randn(4, 2, 8, 8))


@pytest.mark.slow
def test_a_network_compiles():
    """torch.compile keeps what a layer notes on its output for the norm."""
    torch.compiler.reset()
    before, norm = pair("conv2d", start=0)
    network = nn.Sequential(before, norm)
    plain, compiled = copy.deepcopy(network), torch.compile(network, backend="aot_eager", fullgraph=True)
    for step in range(3):
        x = torch.randn(SHAPES["conv2d"], dtype=torch.float64)
        compiled(x).square().sum().backward()
        plain(x).square().sum().backward()
        move(before, step)
        move(plain[0], step)
    for ours, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-8)
    torch.testing.assert_close(network.state_dict(), plain.state_dict(), rtol=0, atol=1e-8)


def test_what_it_cannot_follow_is_refused():
    option = CrossIteration()
    with pytest.raises(ValueError, match="padding=same"):
        option.conv2d(3, 6, 3, padding="same")
    with pytest.raises(ValueError, match="order=act_norm"):
        option.order("act_norm")
    with pytest.raises(ValueError, match="window=0"):
        CrossIteration(window=0)


@pytest.mark.parametrize("kind", SHAPES)
def test_behind_a_frozen_layer_the_statistics_are_of_all_samples_of_the_window(kind):
    """Its weight does not move, so the batches of a window are as one large batch, for which there is batch norm."""
    before, norm = pair(kind, window=3, start=0)
    before.requires_grad_(False).eval()
    torch.manual_seed(1)
    batches = [torch.randn(SHAPES[kind], dtype=torch.float64) for _ in range(5)]
    for number, batch in enumerate(batches):
        window = torch.cat(batches[max(0, number - 2) : number + 1])
        wanted = F.batch_norm(before(window), None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
        torch.testing.assert_close(norm(before(batch)), wanted[-len(batch) :])
