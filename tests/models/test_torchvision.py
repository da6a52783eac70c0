"""model=torchvision: every classification network of the registry, its norms, its head and its sizes."""

import copy
from collections import Counter

import pytest
import torch
import torchvision.models as library
from torch import nn
from torch.overrides import TorchFunctionMode

from normlab.errors import ConfigError
from normlab.models.torchvision import _new_head, network
from normlab.norms.batch import Batch
from normlab.norms.common.probe import check_forward
from normlab.norms.common.replace import replace_norms
from normlab.norms.frozen import Frozen
from normlab.norms.group import Group
from normlab.norms.none import NoNorm

NAMES = library.list_models(module=library)
BY_FAMILY = {library.get_model_builder(name).__module__: name for name in reversed(NAMES)}  # the first of each family
FIRST = sorted(BY_FAMILY.values())
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in NAMES if name not in FIRST]
SIZE = 224
TRANSFORMERS = ("vision_transformer", "swin_transformer", "maxvit", "convnext")  # with norms on (N, L, C)


class Weightless(TorchFunctionMode):
    """Makes parameters on the meta device, so that the largest network costs neither memory nor time."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in (torch.empty, torch.zeros, torch.ones):
            kwargs = {**kwargs, "device": "meta"}
        return function(*args, **kwargs)


def family(name: str) -> str:
    return library.get_model_builder(name).__module__.rpartition(".")[2]


def kinds(module: nn.Module) -> Counter[str]:
    return Counter(type(m).__name__ for m in module.modules())


def randomised(module: nn.Module) -> nn.Module:
    """With γ, β, running statistics and counters as if trained."""
    torch.manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            layer.num_batches_tracked.fill_(7)
    return module


def test_the_registry_is_there():
    assert len(NAMES) >= 80
    assert len(FIRST) >= 15
    assert {"resnet", "densenet", "vision_transformer", "maxvit"} <= {family(name) for name in FIRST}


@pytest.mark.parametrize("name", [*FIRST, *OTHERS])
def test_every_norm_of_every_network_is_replaced_or_named(name):
    with Weightless():
        extra = {"init_weights": False} if family(name) in ("googlenet", "inception") else {}
        before = kinds(library.get_model(name, weights=None, **({"aux_logits": False} if extra else {}), **extra))
        keep = ["LayerNorm"] if before["LayerNorm"] else []
        if keep:
            with pytest.raises(ValueError, match="norm=group cannot replace LayerNorm"):
                network(Group(), (3, SIZE, SIZE), 10, name)
        replaced = before["BatchNorm2d"] + before["LayerNorm2d"]
        if not replaced:
            with pytest.raises(ValueError, match="norm=none"):
                network(Group(), (3, SIZE, SIZE), 10, name, keep=keep)
            after = kinds(network(NoNorm(), (3, SIZE, SIZE), 10, name, keep=keep))
            assert after == before
            return
        after = kinds(network(Group(), (3, SIZE, SIZE), 10, name, keep=keep))
    expected = before - Counter(["BatchNorm2d", "LayerNorm2d"] * replaced) + Counter(GroupNorm=replaced)
    assert after == expected
    assert bool(keep) == (family(name) in TRANSFORMERS)


@pytest.mark.parametrize("name", FIRST)
def test_a_pretrained_networks_new_head_is_that_of_a_network_for_so_many_outputs(name):
    def shapes(outputs: int) -> dict[str, torch.Size]:
        extra = {"init_weights": False, "aux_logits": False} if family(name) in ("googlenet", "inception") else {}
        module = library.get_model(name, weights=None, num_classes=outputs, **extra)
        _new_head(module, 10)
        return {key: value.shape for key, value in module.state_dict().items()}

    with Weightless():
        assert shapes(1000) == shapes(10)


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        pytest.param("resnet18", Batch(), marks=pytest.mark.slow),
        ("shufflenet_v2_x0_5", Batch()),
        ("mobilenet_v3_small", Batch(eps=1e-3, momentum=0.01)),
        pytest.param("resnet18", Frozen(), marks=pytest.mark.slow),
        ("mobilenet_v3_small", Frozen(eps=1e-3)),
    ],
)
def test_a_trained_networks_output_stays(name, norm):
    """norm=batch in evaluation and in training, norm=frozen in evaluation, with the network's own eps."""
    old = randomised(library.get_model(name, weights=None, num_classes=10)).double()
    new = replace_norms(copy.deepcopy(old), norm)
    x = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(new.eval()(x), old.eval()(x), rtol=1e-10, atol=1e-10)
    if isinstance(norm, Batch):
        outputs = []
        for module in (old.train(), new.train()):
            torch.manual_seed(1)  # the dropout draws from it
            outputs.append(module(x))
        torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(new.state_dict(), old.state_dict(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", [pytest.param("shufflenet_v2_x0_5", marks=pytest.mark.slow), "googlenet"])
def test_pretrained_weights_and_statistics_are_taken_over(name, tmp_path, monkeypatch):
    """The download is a file here, laid where torch.hub would put it."""
    aux = {"aux_logits": True, "init_weights": False} if name == "googlenet" else {}
    trained = randomised(library.get_model(name, weights=None, **aux)).state_dict()
    url = library.get_model_weights(name).DEFAULT.url
    (tmp_path / "checkpoints").mkdir()
    torch.save(trained, tmp_path / "checkpoints" / url.rpartition("/")[2])
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    built = network(Batch(), (3, 64, 64), 10, name, pretrained=True)
    for key, value in built.state_dict().items():
        if not key.startswith("fc."):
            torch.testing.assert_close(value, trained[key], rtol=0, atol=0)
    assert built.fc.weight.shape == (10, trained["fc.weight"].shape[1])
    assert built.train()(torch.randn(2, 3, 64, 64)).shape == (2, 10)  # a tensor: auxiliary outputs are off
    kept = network(Batch(), (3, 64, 64), 1000, name, pretrained=True)
    assert torch.equal(kept.fc.weight, trained["fc.weight"])


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_outputs_are_off(name):
    with torch.device("meta"):
        built = network(Group(), (3, 96, 96), 10, name)
        assert built.train()(torch.zeros(2, 3, 96, 96)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "norm", "size"), [("vit_b_16", NoNorm(), 32), ("swin_t", NoNorm(), 32), ("maxvit_t", Group(), 448)]
)
def test_transformers_take_the_size_of_the_images(name, norm, size):
    with torch.device("meta"):
        built = network(norm, (3, size, size), 10, name, keep=["LayerNorm"])
        check_forward(built, (3, size, size), 10)


def test_what_cannot_be_built_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="model.name=resnet81: torchvision has no such network; did you mean resnet18"):
        network(Batch(), (3, 32, 32), 10, "resnet81")
    with pytest.raises(ValueError, match="takes images of 3 channels, the data has 1: set data.channels=3"):
        network(Batch(), (1, 32, 32), 10)
    with torch.device("meta"):
        with pytest.raises(ValueError, match="name=vit_b_16 cannot be built for images of 3×30×30: .*patch size"):
            network(NoNorm(), (3, 30, 30), 10, "vit_b_16")
        with pytest.raises(ValueError, match="name=maxvit_t cannot be built for images of 3×32×32: .*not divisible"):
            network(Group(), (3, 32, 32), 10, "maxvit_t")
        with pytest.raises(ValueError, match="vit_b_16 cannot be built for images of 3×32×32: .*image_size.*224"):
            network(NoNorm(), (3, 32, 32), 10, "vit_b_16", pretrained=True)
        wide = network(NoNorm(), (3, 32, 64), 10, "vit_b_16", keep=["LayerNorm"])
        with pytest.raises(ValueError, match="cannot take samples of shape .*Wrong image width"):
            check_forward(wide, (3, 32, 64), 10)


def test_weights_that_cannot_be_fetched_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))

    def offline(*_, **__):
        from urllib.error import URLError

        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "urlopen", offline)
    with pytest.raises(ConnectionError, match=r"model.pretrained=true: the weights of resnet18 cannot.*no network"):
        network(Batch(), (3, 32, 32), 10, pretrained=True)


def test_maps_of_a_single_value_are_refused_by_the_layers_name(quick_run):
    with pytest.raises(ConfigError, match=r"layer4.0.bn1 takes its statistics over a single value of each sample"):
        quick_run("model=torchvision", "norm=instance")
    with pytest.raises(ConfigError, match=r"layer4.0.bn1 one value per channel: raise data.batch_size"):
        quick_run("model=torchvision", "data.batch_size=1")


@pytest.mark.slow
def test_the_remedies_of_the_messages_train(quick_run):
    assert quick_run("model=torchvision", "norm=instance", "data.size=64").score is not None
    quick_run("model=torchvision", "model.name=squeezenet1_1", "norm=none", folder="squeezenet")
