"""Rates of parts: the order of the layers against timm's, the rates of every scheduler, and the logged ones."""

import csv
import math
from functools import partial

import pytest
import timm
import torch
import torchvision.models as library
from timm.optim import param_groups_layer_decay  # pyright: ignore[reportPrivateImportUsage]
from torch import nn
from torch.optim import lr_scheduler

from normlab import compose, parameter_groups, run
from normlab.errors import ConfigError
from normlab.folder.identity import config_hash
from normlab.models.resnet import ResNet
from normlab.norms.batch import Batch
from normlab.tasks.depth import layers
from normlab.tasks.schedulers import Schedule, cosine

TORCHVISION = [
    "resnet18",
    "vgg11_bn",
    "vit_b_16",
    "swin_t",
    "convnext_tiny",
    "efficientnet_b0",
    "densenet121",
    "maxvit_t",
]


def rates(groups: list[dict], key: str) -> dict[int, float]:
    return {id(parameter): group[key] for group in groups for parameter in group["params"]}


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vit_tiny_patch16_224", "test_vit"])
def test_the_rates_are_timms(name):
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=5)
    expected = rates(param_groups_layer_decay(network, layer_decay=0.7), "lr_scale")
    groups = parameter_groups(network, weight_decay=0.05, layer_decay=0.7, lr=1e-3)
    assert rates(groups, "lr_scale") == pytest.approx(expected)
    assert rates(groups, "lr") == pytest.approx({parameter: 1e-3 * scale for parameter, scale in expected.items()})


def test_weight_decay_is_as_without_layers():
    network = ResNet(Batch(), (3, 8, 8), 5)
    plain = rates(parameter_groups(network, weight_decay=0.05), "weight_decay")
    assert {*plain.values()} == {0.05, 0.0}
    assert rates(parameter_groups(network, weight_decay=0.05, layer_decay=0.5, lr=1.0), "weight_decay") == plain


def test_the_layers_of_a_residual_network_are_its_blocks():
    network = ResNet(Batch(), (3, 8, 8), 5, depth=14)
    found = layers(network)
    assert [*found] == ["conv1", *(f"blocks.{number}" for number in range(6)), "fc"]
    last = {id(parameter) for parameter in found["blocks.5"]}
    assert {id(network.bn.weight), id(network.bn.bias)} <= last  # the norm behind the last block


@pytest.mark.parametrize("name", TORCHVISION)
def test_every_parameter_is_in_one_layer_and_the_classifier_on_top(name):
    with torch.device("meta"):
        network = library.get_model(name, weights=None, num_classes=5)
    found = [id(parameter) for parameters in layers(network).values() for parameter in parameters]
    assert sorted(found) == sorted(id(parameter) for parameter in network.parameters())
    assert {len(parameter) for parameter in [*layers(network).values()][-1]} == {5}


def test_wrapped_networks_are_opened():
    with torch.device("meta"):
        network = nn.Sequential(library.resnet18(num_classes=7), nn.Linear(7, 2))
    assert [*layers(network)][:3] == ["0.conv1", "0.layer1.0", "0.layer1.1"]
    assert [*layers(network)][-1] == "1"


SCHEDULERS = {
    "onecycle": (lr_scheduler.OneCycleLR, {"max_lr": 0.1}),
    "cyclic": (lr_scheduler.CyclicLR, {"base_lr": 0.01, "max_lr": 0.1}),
    "cosine": (cosine, {"warmup": 0.1}),
    "step": (lr_scheduler.StepLR, {"step_size": 3}),
    "cosine annealing": (lr_scheduler.CosineAnnealingLR, {"T_max": 20}),
    "exponential": (lr_scheduler.ExponentialLR, {"gamma": 0.9}),
    "polynomial": (lr_scheduler.PolynomialLR, {"total_iters": 20, "power": 2.0}),
}


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_every_schedule_keeps_the_ratio_of_the_rates_and_the_heads_rate(kind):
    made, keys = SCHEDULERS[kind]
    network = ResNet(Batch(), (3, 8, 8), 5)
    many = torch.optim.SGD(parameter_groups(network, layer_decay=0.5, lr=0.1), lr=0.1, momentum=0.9)
    one = torch.optim.SGD(parameter_groups(network), lr=0.1, momentum=0.9)
    optimizers = (many, one)
    schedules = [Schedule(partial(made, **keys)).build(optimizer, 20, lambda _: "max") for optimizer in optimizers]
    for _ in range(15):
        head = one.param_groups[0]["lr"]
        for group in many.param_groups:
            assert group["lr"] == pytest.approx(head * group["lr_scale"], rel=1e-6), group["name"]
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()


def test_a_run_steps_and_logs_each_layers_rate(tmp_path):
    quick = [
        "trainer=debug",
        "data.size=8",
        "model=mynet",
        "trainer.max_epochs=1",
        "callbacks=lr_monitor",
        "logger=csv",
    ]
    run(compose([*quick, "optimizer.lr=0.25", "optimizer.layer_decay=0.5", "scheduler=none"]), folder=tmp_path)
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"]
    assert {group["name"]: group["lr"] for group in saved} == {
        "fc1": 0.25, "fc1/plain": 0.25, "conv1": 0.125, "conv1/plain": 0.125
    }  # fmt: skip
    (file,) = [path for path in tmp_path.rglob("metrics.csv") if path.parent != tmp_path]
    row = next(csv.DictReader(file.read_text().splitlines()))
    assert float(row["lr-SGD/conv1"]) == 0.125


def test_no_decay_is_the_run_without_the_key(tmp_path):
    for value in ("1.0", "null"):
        assert parameter_groups(ResNet(Batch(), (3, 8, 8), 5), layer_decay=1.0, lr=1.0)[0].keys() == {"params"}
        config = compose(["model=net", "data=wine", f"optimizer.layer_decay={value}"])
        assert config.optimizer.layer_decay in (1.0, None)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer.layer_decay=0"], "optimizer.layer_decay=0: expected a number above 0"),
        (["optimizer.layer_decay=1.5"], "optimizer.layer_decay=1.5: expected a number above 0"),
        (["optimizer.layer_decay=0.5", "action=lr_find"], "which raises one rate for all"),
        (["optimizer.norm_bias_scale=0"], "optimizer.norm_bias_scale=0: expected a number above 0"),
        (["optimizer.norm_bias_scale=64", "action=lr_find"], "search with optimizer.norm_bias_scale=1"),
    ],
)
def test_what_is_no_decay_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        compose(["model=net", "data=wine", *overrides])


def test_a_lowest_rate_of_all_layers_is_refused(quick_run):
    annealing = ["scheduler._target_=torch.optim.lr_scheduler.CosineAnnealingLR", "+scheduler.T_max=5"]
    with pytest.raises(ConfigError, match=r"scheduler.eta_min=0.001: .*optimizer.layer_decay"):
        quick_run("optimizer.layer_decay=0.5", *annealing, "+scheduler.eta_min=0.001")


def test_layers_need_a_rate():
    with pytest.raises(ValueError, match=r"layer_decay=0.5 of lr=None"):
        parameter_groups(ResNet(Batch(), (3, 8, 8), 5), layer_decay=0.5)
    assert math.isclose(parameter_groups(ResNet(Batch(), (3, 8, 8), 5), layer_decay=0.5, lr=1.0)[-1]["lr"], 0.0625)
    with pytest.raises(ValueError, match=r"norm_bias_scale=64 of lr=None"):
        parameter_groups(ResNet(Batch(), (3, 8, 8), 5), norm_bias_scale=64)


def test_the_biases_of_norms_alone_have_a_rate_of_their_own():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    groups = parameter_groups(network, 0.05, lr=0.1, norm_bias_scale=64)
    decays, beta = rates(groups, "weight_decay"), id(network[1].bias)
    of_parameters = {id(parameter): group.get("lr", 0.1) for group in groups for parameter in group["params"]}
    expected = {id(parameter): 0.1 for parameter in network.parameters()} | {beta: 6.4}
    assert of_parameters == pytest.approx(expected)
    assert decays == rates(parameter_groups(network, 0.05), "weight_decay")
    layered = rates(parameter_groups(network, layer_decay=0.5, lr=0.1, norm_bias_scale=64), "lr")
    plain = rates(parameter_groups(network, layer_decay=0.5, lr=0.1), "lr")
    assert layered == {key: 64 * lr if key == beta else lr for key, lr in plain.items()}


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_every_schedule_keeps_the_scale_of_the_biases(kind):
    made, keys = SCHEDULERS[kind]
    groups = parameter_groups(ResNet(Batch(), (3, 8, 8), 5), lr=0.1, norm_bias_scale=64)
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    schedule = Schedule(partial(made, **keys)).build(optimizer, 20, lambda _: "max")
    for _ in range(15):
        *others, biases = (group["lr"] for group in optimizer.param_groups)
        assert biases == pytest.approx(64 * others[0], rel=1e-6)
        assert len({*others}) == 1
        optimizer.step()
        schedule.step()


def test_a_step_moves_the_biases_of_norms_so_many_times_as_far(tmp_path):
    quick = ["trainer=debug", "data.size=8", "model=mynet", "scheduler=none", "logger=none"]
    ends = {}
    for scale in (1, 64):
        run(compose([*quick, f"optimizer.norm_bias_scale={scale}"]), folder=tmp_path / str(scale))
        saved = torch.load(tmp_path / str(scale) / "checkpoints" / "last.ckpt", weights_only=True)
        ends[scale] = saved["state_dict"]
    for name, values in ends[1].items():
        factor = 64 if name == "network.bn1.bias" else 1  # they begin at 0
        torch.testing.assert_close(ends[64][name], factor * values, rtol=1e-5, atol=0)


def test_a_scale_of_one_is_the_run_that_it_was():
    plain = config_hash(compose(["model=net", "data=wine"]))
    assert config_hash(compose(["model=net", "data=wine", "optimizer.norm_bias_scale=null"])) == plain
    assert config_hash(compose(["model=net", "data=wine", "optimizer.norm_bias_scale=2"])) != plain
    lacking = compose(["model=net", "data=wine"])
    del lacking.optimizer.norm_bias_scale  # as folders of earlier states have it
    assert config_hash(lacking) == plain
