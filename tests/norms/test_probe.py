"""What a probe finds in a network before training, on networks made for the purpose."""

import pytest
import torch
from torch import nn

from normlab.norms.common.declaration import declaration
from normlab.norms.common.probe import check_forward, probe


class Shared(nn.Module):
    """One norm used on maps of two sizes."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm, self.pool = norm, nn.MaxPool2d(2)

    def forward(self, x):  # (N, 3, H, W) -> (N, 3)
        return self.norm(self.pool(self.norm(x))).mean((2, 3))


def test_a_shared_norm_sees_each_of_its_inputs():
    """Watching it must not put its first input in the place of the second."""
    sizes = []
    network = Shared(nn.BatchNorm2d(3))
    network.norm.register_forward_hook(lambda module, args, output: sizes.append(tuple(output.shape[2:])))
    seen = check_forward(network, (3, 8, 8), 3)
    assert sizes == [(8, 8), (4, 4)]
    assert seen["norm"].shape == (2, 3, 8, 8)


def test_a_single_value_is_told_by_the_layers_name():
    network = nn.Sequential(nn.Conv2d(3, 4, 8), nn.InstanceNorm2d(4), nn.Flatten())
    with pytest.raises(ValueError, match=r"1 takes its statistics over a single value .* shape \(2, 4, 1, 1\)"):
        check_forward(network, (3, 8, 8), 4)
    check_forward(network, (3, 9, 9), 16)


def test_layer_norm_on_the_last_axis_counts_the_values_of_that():
    declared = declaration(nn.LayerNorm(6))
    assert (declared.values((2, 6)), declared.values((2, 1, 6)), declared.values((2, 1, 1, 6))) == (6, 6, 6)
    check_forward(nn.Sequential(nn.LayerNorm(6), nn.Flatten()), (1, 6), 6)


class Refuses(nn.Module):
    def forward(self, x):
        raise AssertionError


def test_a_refusal_without_a_word_is_told_by_its_kind(monkeypatch):
    """Some of timm's networks refuse images of another size in this way."""
    monkeypatch.setattr(Refuses, "__module__", "timm.models")
    with pytest.raises(ValueError, match=r"cannot take samples of shape \(3,\): AssertionError"):
        probe(Refuses(), torch.zeros(2, 3), {})


def test_a_mistake_in_a_network_of_ones_own_is_raised_as_it_is():
    with pytest.raises(AssertionError) as raised:
        probe(Refuses(), torch.zeros(2, 3), {})
    assert raised.traceback[-1].name == "forward"
    assert raised.value.__notes__ == ["This came of samples of shape (3,), sent through before the training."]
