"""Frozen means frozen: training changes no bit of a frozen part, for every norm of conf/norm and torch's own."""

import copy
import pickle
from collections import OrderedDict
from typing import Any

import pytest
import torch
import torchvision.models as library
from helpers.cases import options
from hydra.utils import instantiate
from torch import nn

from normlab import freeze, parameter_groups
from normlab.config.options import read_option
from normlab.models.my_model import MyModel
from normlab.models.resnet import ResNet
from normlab.norms.batch import Batch
from normlab.norms.common.declaration import declaration

TORCH = {
    "BatchNorm2d": lambda: nn.BatchNorm2d(8),
    "BatchNorm2d, cumulative": lambda: nn.BatchNorm2d(8, momentum=None),
    "BatchNorm2d, without parameters": lambda: nn.BatchNorm2d(8, affine=False),
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
    "GroupNorm": lambda: nn.GroupNorm(2, 8),
    "LayerNorm": lambda: nn.LayerNorm([8, 6, 6]),
}


def resnet(norm: str) -> nn.Module:
    torch.manual_seed(0)
    return ResNet(instantiate(read_option("norm", norm)), (3, 8, 8), 4)


def with_torchs(layer: nn.Module) -> Any:
    torch.manual_seed(0)
    parts = {"conv": nn.Conv2d(3, 8, 3), "norm": layer, "flat": nn.Flatten(), "fc": nn.Linear(288, 4)}
    return nn.Sequential(OrderedDict(parts))


def train(network: nn.Module, steps: int = 3) -> None:
    """A person's own loop, whose optimizer has every parameter, with momentum and weight decay."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(steps):
        network.train()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(torch.randn(8, 3, 8, 8) * 3 + 1), torch.arange(8) % 4)
        loss.backward()
        optimizer.step()
        network.eval()
        network(torch.randn(8, 3, 8, 8))


def changed(network: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


def state_of(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("norm", options("norm"))
def test_training_changes_no_bit_of_a_frozen_backbone(norm):
    network = resnet(norm)
    train(network)  # so that statistics, rings and counters are no longer their first values
    before = state_of(network)
    freeze(network)
    train(network)
    assert changed(network, before) == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("kind", TORCH)
def test_training_changes_no_bit_of_torchs_layers(kind):
    network = with_torchs(TORCH[kind]())
    before = state_of(network)
    freeze(network)
    train(network)
    assert changed(network, before) == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("norm", options("norm"))
def test_a_frozen_layer_computes_what_it_computes_in_evaluation(norm):
    network = resnet(norm)
    train(network)
    x = torch.randn(4, 3, 8, 8)
    expected = network.eval()(x)
    freeze(network)
    assert torch.equal(network.train()(x), expected)


@pytest.mark.parametrize("norm", options("norm"))
def test_thawed_all_trains_as_if_it_had_never_been_frozen(norm):
    plain, network = resnet(norm), resnet(norm)
    frozen = freeze(network)
    frozen.thaw()
    frozen.thaw()
    for each in (plain, network):
        torch.manual_seed(1)
        train(each)
    assert changed(network, plain.state_dict()) == set()
    assert [m.training for m in network.modules()] == [m.training for m in plain.modules()]
    assert not any("train" in vars(module) for module in network.modules())


def test_a_glob_freezes_modules_with_all_in_them_and_parameters():
    network = resnet("batch")
    before = state_of(network)
    frozen = freeze(network, ["blocks.[01]", "conv1.weight"])
    assert {"blocks.0", "blocks.0.bn1", "blocks.1.relu2"} <= frozen.modules.keys()
    train(network)
    kept = {name for name in before if name.startswith(("blocks.0.", "blocks.1.", "conv1"))}
    assert changed(network, before) == before.keys() - kept


def test_a_norm_is_frozen_with_the_last_of_its_parameters():
    network = with_torchs(nn.BatchNorm2d(8))
    freeze(network, "norm.weight")
    assert network.norm.training
    freeze(network, "norm.b*")
    before = state_of(network)
    train(network)
    assert not changed(network, before) & {"norm.weight", "norm.bias", "norm.running_mean", "norm.num_batches_tracked"}


def test_the_head_takes_the_norm_on_the_outputs_along():
    network = MyModel(Batch(), (3, 8, 8), 4)
    frozen = freeze(network)
    assert set(frozen.modules) == {"conv1", "bn1"}
    assert {name for name, p in network.named_parameters() if p.requires_grad} == {
        "fc1.weight", "fc1.bias", "bn2.weight", "bn2.bias"
    }  # fmt: skip


def test_dropout_rests_inside_the_backbone_and_goes_on_before_the_head():
    network = library.efficientnet_b0(num_classes=3)
    freeze(network)
    network.train()
    assert not any(module.training for module in network.features.modules())
    assert network.classifier[0].training
    assert not network.train().features.training
    assert not network.features[0].train().training


def test_what_a_person_had_put_into_eval_mode_stays_there_after_the_thaw():
    network = with_torchs(nn.BatchNorm2d(8))
    network.norm.eval()
    frozen = freeze(network, ["conv", "norm"])
    frozen.thaw()
    assert (network.conv.training, network.norm.training) == (True, False)
    assert network.train().norm.training


def test_a_frozen_network_is_copied_and_pickled():
    network = resnet("batch")
    freeze(network)
    copied = copy.deepcopy(network)
    before = state_of(copied)
    train(copied)
    assert changed(copied, before) == {"fc.weight", "fc.bias"}
    assert changed(network, before) == set()
    assert pickle.loads(pickle.dumps(network)).fc.out_features == 4


def test_a_part_to_be_thawed_is_in_the_optimizer_and_stands_still_until_then():
    network = resnet("batch")
    alone = parameter_groups(copy.deepcopy(network))
    frozen = freeze(network)
    assert sum(len(group["params"]) for group in parameter_groups(network)) == 2
    groups = parameter_groups(network, thawing=frozen)
    assert [len(group["params"]) for group in groups] == [len(group["params"]) for group in alone]
    optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.1)
    before = state_of(network)
    for _ in range(2):
        network(torch.randn(4, 3, 8, 8)).sum().backward()
        optimizer.step()
    assert changed(network, before) == {"fc.weight", "fc.bias"}
    frozen.thaw()
    network(torch.randn(4, 3, 8, 8)).sum().backward()
    optimizer.step()
    assert {"conv1.weight", "blocks.0.bn1.bias", "blocks.0.bn1.running_mean"} <= changed(network, before)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("blocs*", "freeze=blocs*: nothing in the network is called so; did you mean blocks"),
        ("qqq", "freeze=qqq: nothing in the network is called so (it has conv1, blocks, bn, relu, fc)"),
        ("*", "freeze=*: nothing is left to train"),
        (["backbone", "fc"], "freeze=[backbone,fc]: nothing is left to train"),
        ("relu", "freeze=relu: there is nothing in it that training would change"),
    ],
)
def test_what_freezes_nothing_or_all_is_refused_and_changes_nothing(what, message):
    network = resnet("batch")
    with pytest.raises(ValueError, match="^freeze=") as refusal:
        freeze(network, what)
    assert str(refusal.value).startswith(message)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(module.training for module in network.modules())


def test_a_network_that_is_all_head_has_no_backbone():
    with pytest.raises(ValueError, match="freeze=backbone: there is nothing in it that training would change"):
        freeze(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)))


def test_every_norm_is_among_the_frozen_modules():
    network = resnet("batch")
    norms = {name for name, module in network.named_modules() if declaration(module)}
    assert norms
    assert norms <= freeze(network).modules.keys()
