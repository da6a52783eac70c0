"""model=timm: its small test networks in full, and one or two networks of each of its files without weights."""

import copy
import re

import pytest
import timm
import torch
from torch import nn

from normlab.models.timm import network
from normlab.norms.batch import Batch
from normlab.norms.common.probe import check_forward, probe
from normlab.norms.common.replace import replace_norms
from normlab.norms.frozen import Frozen
from normlab.norms.ghost import Ghost
from normlab.norms.group import Group
from normlab.norms.none import NoNorm

FILES = {module: timm.list_models(module=module) for module in timm.list_modules()}
EACH = sorted({name for names in FILES.values() if names for name in (names[0], names[-1])})


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return module


@pytest.mark.parametrize("norm", [Batch(), Frozen()], ids=["batch", "frozen"])
@pytest.mark.parametrize("name", ["resnet10t", "test_resnet", "test_byobnet", "test_efficientnet", "levit_128s"])
def test_a_trained_networks_output_stays(name, norm):
    """With norms apart (resnet), norm, dropout and activation in one (byobnet), and on (N, C) (levit)."""
    shape = (3, 224, 224) if name == "levit_128s" else (3, 48, 48)
    old = randomised(timm.create_model(name, num_classes=10)).double()
    x = torch.randn(2, *shape, dtype=torch.float64)
    new = replace_norms(copy.deepcopy(old), norm, x)
    assert not any(type(m).__name__ == "BatchNormAct2d" for m in new.modules())
    torch.testing.assert_close(new.eval()(x), old.eval()(x), rtol=1e-9, atol=1e-9)
    if isinstance(norm, Batch):
        outputs = []
        for module in (old.train(), new.train()):
            torch.manual_seed(1)
            outputs.append(module(x))
        torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-9, atol=1e-9)
        moved = {key.replace(".norm.", "."): value for key, value in new.state_dict().items()}
        theirs = {key.replace(".norm.", "."): value for key, value in old.state_dict().items()}
        torch.testing.assert_close(moved, theirs, rtol=1e-9, atol=1e-9)


def test_group_norm_in_one_with_its_activation_is_replaced():
    built = network(Ghost(size=2), (3, 32, 32), 10, "test_efficientnet_gn")
    assert not any(isinstance(module, nn.GroupNorm) for module in built.modules())
    built(torch.randn(4, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in built.parameters())


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_first_convolution_takes_the_datas_channels(channels):
    assert network(Group(), (channels, 32, 32), 10)(torch.zeros(2, channels, 32, 32)).shape == (2, 10)


def test_a_network_for_one_size_is_built_for_the_datas():
    built = network(NoNorm(), (3, 32, 48), 10, "test_vit", keep=["LayerNorm"])
    check_forward(built, (3, 32, 48), 10)


def test_what_cannot_be_built_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="model.name=resnet81: timm has no such network; did you mean resnet18"):
        network(Batch(), (3, 32, 32), 10, "resnet81")
    with pytest.raises(
        ValueError, match="model.name=resnet18.nobodys cannot be built for images of 3×32×32: .*nobodys"
    ):
        network(Batch(), (3, 32, 32), 10, "resnet18.nobodys")
    without = next(name for name in timm.list_models("resnet*") if not timm.is_model_pretrained(name))
    with pytest.raises(ValueError, match=f"model.name={without} cannot be built .*(?i:pretrained)"):
        network(Batch(), (3, 32, 32), 10, without, pretrained=True)
    with pytest.raises(ValueError, match=r"cannot replace LayerNorm .*model.keep=\[LayerNorm\].*norm=none"):
        network(Batch(), (3, 32, 32), 10, "test_vit")
    with pytest.raises(ValueError, match="norm=none"):
        network(Batch(), (3, 32, 32), 10, "test_nfnet")


def test_the_walk_over_timms_files_finds_some():
    assert len(EACH) > 100


@pytest.mark.endurance
@pytest.mark.parametrize("name", EACH)
def test_networks_of_every_file_run_with_their_norms_replaced(name):
    """On the meta device: whatever timm's code asks of a norm in the forward pass, the new layer has."""
    config = timm.get_pretrained_cfg(name)
    shape = tuple(config.input_size) if config is not None else (3, 224, 224)
    norm, keep = Ghost(size=2), []
    with torch.device("meta"):
        try:
            built = network(norm, shape, 10, name)
        except ValueError as refusal:
            if remedy := re.search(r"model.keep=\[(.*?)\]", str(refusal)):
                keep = remedy[1].split(",")
            if "norm=none" in str(refusal):
                norm = NoNorm()
            assert keep or isinstance(norm, NoNorm)
            built = network(norm, shape, 10, name, keep=keep)
        assert isinstance(norm, NoNorm) or any(type(m).__name__ == "GhostNorm" for m in built.modules())
        probe(built, torch.zeros(2, *shape), {})
