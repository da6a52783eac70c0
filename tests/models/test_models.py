"""The tutorials' classes, written out, against ours: same names, same parameters, same output."""

import pytest
import torch
from torch import nn

from normlab.models.custom_model import CustomModel
from normlab.models.mlp import MLP
from normlab.models.my_model import MyModel
from normlab.models.mynet import MyNet
from normlab.models.net import Net
from normlab.models.resnet import ResNet
from normlab.norms.batch import Batch
from normlab.norms.group import Group
from normlab.norms.none import NoNorm


class TutorialMyNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.fc1 = nn.Linear(64 * 32 * 32, 10)

    def forward(self, x):
        x = self.conv1(x)
        x = self.bn1(x)
        x = self.relu(x)
        x = x.view(x.size(0), -1)
        return self.fc1(x)


class TutorialNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(10, 20)
        self.bn1 = nn.BatchNorm1d(20)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(20, 10)

    def forward(self, x):
        return self.fc2(self.relu(self.bn1(self.fc1(x))))


class TutorialCustomModel(nn.Module):
    def __init__(self, in_features, hidden_units, out_features):
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_units)
        self.bn1 = nn.BatchNorm1d(hidden_units)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(hidden_units, out_features)
        self.bn2 = nn.BatchNorm1d(out_features)

    def forward(self, x):
        x = self.relu(self.bn1(self.fc1(x)))
        return self.bn2(self.fc2(x))


class TutorialMyModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3)
        self.bn1 = nn.BatchNorm2d(64)
        self.fc1 = nn.Linear(64, 10)
        self.bn2 = nn.BatchNorm1d(10)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = nn.functional.adaptive_avg_pool2d(x, 1).view(-1, 64)
        return self.bn2(self.fc1(x))


class DenseNet(nn.Module):
    """lightning-hydra-template's."""

    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(
            *(nn.Linear(784, 64), nn.BatchNorm1d(64), nn.ReLU()),
            *(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU()),
            *(nn.Linear(128, 256), nn.BatchNorm1d(256), nn.ReLU()),
            nn.Linear(256, 10),
        )

    def forward(self, x):
        return self.model(x.view(x.size(0), -1))


IMAGE, TABLE = (3, 32, 32), (10,)
PAIRS = {
    "mynet": (TutorialMyNet, lambda: MyNet(Batch(), IMAGE, 10), IMAGE, 657_290),
    "net": (TutorialNet, lambda: Net(Batch(), TABLE, 10), TABLE, 470),
    "custom_model": (lambda: TutorialCustomModel(10, 16, 5), lambda: CustomModel(Batch(), TABLE, 5, 16), TABLE, 303),
    "my_model": (TutorialMyModel, lambda: MyModel(Batch(), IMAGE, 10), IMAGE, 2_590),
}


@pytest.mark.parametrize("name", PAIRS)
def test_tutorials_weights_load_and_give_the_same_output(name):
    theirs, ours, shape, parameters = PAIRS[name]
    torch.manual_seed(0)
    theirs, ours, x = theirs(), ours(), torch.randn(8, *shape)
    theirs(x + 3)  # running statistics other than the initial ones
    ours.load_state_dict(theirs.state_dict())
    assert sum(p.numel() for p in ours.parameters()) == parameters
    for mode in (True, False):
        torch.testing.assert_close(ours.train(mode)(x), theirs.train(mode)(x), rtol=1e-6, atol=1e-6)
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)


@pytest.mark.parametrize("name", PAIRS)
def test_tutorials_biases_stay_under_every_norm(name):
    network = PAIRS[name][1]()
    assert all(m.bias is not None for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear))


def test_act_norm_puts_the_norm_behind_the_activation():
    network = Net(Batch(), TABLE, 10, order="act_norm")
    x = torch.randn(64, 10)
    expected = network.fc2(nn.BatchNorm1d(20)(torch.relu(network.fc1(x))))
    torch.testing.assert_close(network(x), expected)


def test_custom_model_takes_the_activations_that_torch_has():
    network = CustomModel(Batch(), TABLE, 5, activation="GELU")
    assert isinstance(network.activation, nn.GELU)
    with pytest.raises(ValueError, match="activation=Gelu"):
        CustomModel(Batch(), TABLE, 5, activation="Gelu")


def test_resnet_lets_the_norm_decide_on_biases():
    with_norm, without = ResNet(Batch(), IMAGE, 10), ResNet(NoNorm(), IMAGE, 10)
    assert all(m.bias is None for m in with_norm.modules() if isinstance(m, nn.Conv2d))
    assert all(m.bias is not None for m in without.modules() if isinstance(m, nn.Conv2d))


def test_resnet_keeps_its_shortcut_without_a_norm():
    """An in-place activation on the block's input would change what the shortcut carries."""
    block = ResNet(NoNorm(), IMAGE, 10).blocks[0]
    x = torch.randn(2, 16, 8, 8)
    branch = block.conv2(torch.relu(block.conv1(torch.relu(x))))
    torch.testing.assert_close(block(x.clone()), x + branch)


@pytest.mark.parametrize("depth", [8, 14, 20])
def test_resnet_has_the_depth_of_its_name(depth):
    network = ResNet(Group(), IMAGE, 10, depth)
    layers = [m for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "shortcut" not in n]
    assert len(layers) == depth


def test_resnet_refuses_a_depth_that_no_blocks_give():
    with pytest.raises(ValueError, match="depth=9"):
        ResNet(Batch(), IMAGE, 10, depth=9)


def test_mlp_is_the_dense_network_of_its_source():
    theirs, ours, x = DenseNet(), MLP(Batch(), (1, 28, 28), 10), torch.randn(8, 1, 28, 28)
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-6, atol=1e-6)
    kinds = [type(m).__name__ for m in MLP(Batch(), TABLE, 10, hidden=[5], order="act_norm").hidden]
    assert kinds == ["Linear", "ReLU", "BatchNorm1d"]
    for hidden in ([], [0]):
        with pytest.raises(ValueError, match=r"model.hidden=.*at least one hidden layer"):
            MLP(Batch(), TABLE, 10, hidden=hidden)
