"""Which module is the head, on our networks, torchvision's and timm's."""

import pytest
import timm
import torch
import torchvision.models as library
from torch import nn

from normlab.models.common.head import head
from normlab.models.custom_model import CustomModel
from normlab.models.mlp import MLP
from normlab.models.my_model import MyModel
from normlab.models.mynet import MyNet
from normlab.models.net import Net
from normlab.models.resnet import ResNet
from normlab.norms.batch import Batch

OURS = {MyNet: "fc1", Net: "fc2", MLP: "fc", ResNet: "fc", MyModel: "fc1", CustomModel: "fc2"}
TORCHVISION = {
    "resnet18": "fc",
    "vgg11": "classifier.6",
    "squeezenet1_0": "classifier.1",
    "vit_b_16": "heads.head",
    "swin_t": "head",
    "maxvit_t": "classifier.5",
    "efficientnet_b0": "classifier.1",
    "convnext_tiny": "classifier.2",
}
TIMM = {"resnet10t": "fc", "test_vit": "head", "test_efficientnet": "classifier", "test_convnext": "head.fc"}


def name_of(network: nn.Module) -> str:
    found = head(network)
    return next(name for name, module in network.named_modules() if module is found)


@pytest.mark.parametrize("kind", OURS)
def test_of_our_networks(kind):
    assert name_of(kind(Batch(), (3, 8, 8), 5)) == OURS[kind]


@pytest.mark.parametrize("name", TORCHVISION)
def test_of_torchvisions(name):
    with torch.device("meta"):
        assert name_of(library.get_model(name, weights=None, num_classes=5)) == TORCHVISION[name]


@pytest.mark.parametrize("name", TIMM)
def test_of_timms(name):
    with torch.device("meta"):
        assert name_of(timm.create_model(name, num_classes=5)) == TIMM[name]


def test_several_heads_come_as_one_module():
    with torch.device("meta"):
        network = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=5)
    assert [*head(network).children()] == [network.head, network.head_dist]


def test_a_network_without_such_a_layer_says_it_itself_or_is_refused():
    class Own(nn.Sequential):
        def get_classifier(self) -> nn.Module:
            return self[0]

    network = Own(nn.Conv1d(3, 5, 1), nn.Flatten())
    assert head(network) is network[0]
    with pytest.raises(ValueError, match=r"Sequential has neither .* get_classifier"):
        head(nn.Sequential(nn.Conv1d(3, 5, 1)))
