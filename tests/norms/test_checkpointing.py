"""Checkpointed passes against plain ones, bit for bit: outputs, gradients, buffers and the weights of a training."""

import copy
import itertools

import pytest
import torch
from helpers.cases import options, rest_slow
from hydra.utils import instantiate
from torch import nn
from torch.nn import functional as F
from torch.utils import checkpoint as torch_checkpoint

from normlab.config.compose import compose
from normlab.models.resnet import ResNet
from normlab.norms.common.checkpointing import checkpoint

NORMS = options("norm")


def option(name: str):
    keys = {  # what depends on earlier batches does so from the second batch on
        "renorm": ["norm.start=0", "norm.end=1"],
        "mabn": ["norm.start=0", "norm.window=2", "norm.average_from=0"],
        "cross_iteration": ["norm.start=0"],
        "ghost": ["norm.size=3"],
    }
    return instantiate(compose([f"norm={name}", *keys.get(name, [])]).norm)


def segment(name: str) -> nn.Sequential:
    torch.manual_seed(0)
    norm = option(name)
    layers = [norm.conv2d(4, 4, 1), norm(4, 2), norm.act(nn.ReLU(inplace=True)), nn.Dropout(0.5), norm.conv2d(4, 4, 1)]
    return nn.Sequential(*layers, norm(4, 2), norm.act(nn.ReLU()))


def passes(run, network: nn.Module, autocast: bool = False) -> dict[str, torch.Tensor]:
    """What three steps leave of outputs, gradients and buffers; `run` sends x through the segments of `network`."""
    torch.manual_seed(1)
    left = {}
    for step in range(3):
        x = (torch.randn(8, 4, 5, 5) * (step + 1) + step).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = run(x)
        for index, one in enumerate(y if isinstance(y, tuple) else [y]):
            one.float().square().mean().backward()
            left[f"y{step}{index}"] = one.detach().clone()
        left[f"x{step}"] = x.grad
        trained = [(name, p) for name, p in network.named_parameters() if p.grad is not None]  # not another domain's
        left |= {f"{name} {step}": parameter.grad.clone() for name, parameter in trained}
        left |= {f"{name} {step}": buffer.clone() for name, buffer in network.named_buffers()}
        with torch.no_grad():
            for _, parameter in trained:
                parameter.sub_(0.01 * parameter.grad)
        network.zero_grad()
    return left


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key


USES = {
    "one segment": lambda call, a, b: lambda x: call(a, x),
    "two segments": lambda call, a, b: lambda x: call(b, call(a, x)),
    "the same segment twice": lambda call, a, b: lambda x: call(a, call(a, x)),
    "nested": lambda call, a, b: lambda x: call(Calls(call, a, b), x),
    "accumulated": lambda call, a, b: lambda x: (call(a, x), call(a, 2 * x)),
    "shared inside": lambda call, a, b: lambda x: call(nn.Sequential(a, a), x),
}


class Calls(nn.Module):
    """Two segments, each checkpointed, in one that is too."""

    def __init__(self, call, first, second):
        super().__init__()
        self.call, self.first, self.second = call, first, second

    def forward(self, x):
        return self.call(self.second, self.call(self.first, x))


@pytest.mark.parametrize(
    ("name", "use", "autocast"),
    rest_slow(itertools.product(NORMS, USES, [False, True]), lambda case: case[1:] == ("the same segment twice", True)),
)
def test_checkpointed_is_plain_bit_for_bit(name, use, autocast):
    plain, again = (nn.ModuleList([segment(name), segment(name)]) for _ in range(2))
    if not use.startswith(("two", "nested")):
        plain, again = plain[:1], again[:1]
    expected = passes(USES[use](lambda module, x: module(x), plain[0], plain[-1]), plain, autocast)
    assert_same(passes(USES[use](checkpoint, again[0], again[-1]), again, autocast), expected)


def test_activations_inside_are_not_kept():
    inside, saved = segment("batch"), []
    x = torch.randn(8, 4, 5, 5, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        checkpoint(inside, x)
    assert len(saved) < 3  # x, and nothing of the seven layers


def test_a_graph_kept_for_a_second_backward_starts_from_the_same_buffers():
    inside, x = segment("renorm"), torch.randn(8, 4, 5, 5)
    inside(x)
    y = checkpoint(inside, x.requires_grad_()).sum()
    first = torch.autograd.grad(y, inside[0].weight, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(y, inside[0].weight)[0], first)


def test_without_gradients_it_is_a_plain_call():
    inside, x = segment("batch"), torch.randn(8, 4, 5, 5)
    with torch.no_grad():
        checkpoint(inside, x)
    assert int(inside[1].num_batches_tracked) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["batch", "ghost", "group"])
def test_compiled(name):
    inside = segment(name)
    inside[3].p = 0.0  # compiled code draws other random numbers
    plain, x = copy.deepcopy(inside), torch.randn(8, 4, 5, 5)
    compiled = torch.compile(lambda x: checkpoint(inside, x), backend="aot_eager", fullgraph=True)
    compiled(x).square().sum().backward()
    plain(x).square().sum().backward()
    for ours, theirs in zip(inside.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(inside.state_dict()[key], value)


# Those whose statistics a second pass would move, and one that has none.
MOVING = ("batch", "renorm", "mabn", "cross_iteration", "domain", "group")


@pytest.mark.parametrize("name", rest_slow(NORMS, lambda case: case[0] in MOVING))
def test_a_resnet_trains_to_the_same_weights(name):
    torch.manual_seed(0)
    x, target = torch.randn(12, 3, 8, 8), torch.arange(12) % 4
    left = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = ResNet(option(name), (3, 8, 8), 4, checkpointing=checkpointing)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(network(x), target).backward()
            optimizer.step()
        left.append(network.state_dict())
    assert_same(*left)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["ghost", "prediction_time"])
def test_torchs_own_checkpoint_moves_our_statistics_once(name, reentrant):
    plain, again = (nn.ModuleList([segment(name)]) for _ in range(2))
    call = lambda module, x: torch_checkpoint.checkpoint(module, x, use_reentrant=reentrant)
    expected = passes(lambda x: plain[0](x), plain)
    assert_same(passes(lambda x: call(again[0], x), again), expected)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["renorm", "mabn", "cross_iteration"])
def test_torchs_own_checkpoint_is_refused_where_the_output_depends_on_the_statistics(name, reentrant):
    norm = option(name)
    inside = nn.Sequential(norm.conv2d(4, 4, 1), norm(4, 2))
    y = torch_checkpoint.checkpoint(inside, torch.randn(8, 4, 5, 5, requires_grad=True), use_reentrant=reentrant)
    with pytest.raises(ValueError, match=f"norm={name}: .* use normlab.norms.common.checkpointing.checkpoint"):
        y.sum().backward()


def test_torchs_own_checkpoint_moves_torchs_statistics_twice():
    """Why there is one here; when this fails, pytorch #96136 is mended."""
    inside = nn.BatchNorm1d(3)
    torch_checkpoint.checkpoint(inside, torch.randn(5, 3, requires_grad=True), use_reentrant=False).sum().backward()
    assert int(inside.num_batches_tracked) == 2
