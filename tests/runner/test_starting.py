"""A run that starts from weights, and one of which a part is frozen and thawed."""

import contextlib
import hashlib
import shutil
from pathlib import Path

import pytest
import timm
import torch
from helpers.cases import rest_slow
from helpers.folders import assert_same_run, result_of, state
from helpers.harm import TWO as TWO_PROCESSES
from helpers.stopping import stopped
from safetensors.torch import save_file
from torch import nn

from normlab import compose, run
from normlab.errors import ConfigError
from normlab.folder.weights import read_weights
from normlab.models.common.weights import load_fitting
from normlab.models.resnet import ResNet
from normlab.models.timm import network as timm_network
from normlab.norms.batch import Batch
from normlab.norms.group import Group

SHORT = ["trainer.limit_train_batches=3", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1"]
SMALL = ["model=my_model", "data.size=8", "logger=none", *SHORT]
WINE = ["model=net", "data=wine", "logger=none", "trainer.max_epochs=3"]


def small(norm=None, classes: int = 4) -> ResNet:
    return ResNet(norm or Batch(), (3, 8, 8), classes)


def trained(seed: int = 0) -> ResNet:
    """A network whose tensors are no longer what every network begins with."""
    torch.manual_seed(seed)
    network = small()
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = torch.rand_like(tensor) if tensor.is_floating_point() else torch.tensor(7)
    return network


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    with contextlib.chdir(folder):
        run(compose([*SMALL, "trainer.max_epochs=1", "name=pre"]))
    return folder


@pytest.fixture
def pretrained(trained_once, tmp_path, monkeypatch):
    """A copy of a trained run, under the working folder."""
    shutil.copytree(trained_once, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Path("outputs/pre")


WRAPPED = {
    "bare": lambda state: state,
    "of a LightningModule": lambda state: {"state_dict": {f"model.{k}": v for k, v in state.items()}, "epoch": 3},
    "of a task": lambda state: {"state_dict": {f"network.{k}": v for k, v in state.items()} | {"x": torch.ones(1)}},
    "of DataParallel": lambda state: {"model": {f"module.{k}": v for k, v in state.items()}, "args": {"lr": 0.1}},
    "averaged": lambda state: {
        "model": {k: torch.zeros_like(v) for k, v in state.items()},
        "model_ema": {f"module.{k}": v for k, v in state.items()} | {"n_averaged": torch.tensor(5)},
    },
    "compiled": lambda state: {f"module._orig_mod.{k}": v for k, v in state.items()},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_file_loads_as_torch_loads_its_state_dict(tmp_path, kind):
    source, expected, network = trained(), small(), small()
    file = tmp_path / "weights.pth"
    torch.save(WRAPPED[kind](source.state_dict()), file)
    expected.load_state_dict(source.state_dict())
    fit = load_fitting(network, read_weights(file))
    assert len(fit.loaded) == len(expected.state_dict())
    for name, value in network.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name]), name


def test_a_safetensors_file_loads_as_torchs(tmp_path):
    source, network = trained(), small()
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    load_fitting(network, read_weights(tmp_path / "weights.safetensors"))
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in network.state_dict().items())


def test_timms_layers_that_are_norm_and_activation_are_found_where_a_norm_stands_now():
    source = timm.create_model("test_efficientnet", num_classes=4)
    for name, buffer in source.named_buffers():
        buffer.copy_(torch.rand(buffer.shape) + 0.5 if "running" in name else torch.tensor(7))
    network = timm_network(Batch(), (3, 32, 32), 4, name="test_efficientnet")
    fit = load_fitting(network, source.state_dict())
    assert (fit.spare, fit.lacking, fit.shapes) == ([], [], [])
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(network.eval()(x), source.eval()(x))


def test_what_does_not_fit_is_told_and_left_as_it_begins():
    network, source = small(Group(), classes=2), trained()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    weights = {**source.state_dict(), "conv1.weight": torch.zeros(16, 1, 3, 3), "further.weight": torch.zeros(2)}
    del weights["blocks.0.conv1.weight"]
    told = str(load_fitting(network, weights))
    after, few = network.state_dict(), ("blocks.0.bn1", "blocks.0.bn2", "blocks.1.bn1", "blocks.1.bn2")
    assert told.splitlines() == [
        "21 of the network's 25 tensors are loaded",
        "  head fc is new: 4 outputs there, 2 here",
        "  another shape: conv1.weight (16, 1, 3, 3) there, (16, 3, 3, 3) here",
        f"  running statistics that only the file has: {', '.join(few)}, … (7 in all)",
        "  only in the file: further.weight",
        "  only in the network, where they are as they begin: blocks.0.conv1.weight",
    ]  # fmt: skip
    for name in ("fc.weight", "fc.bias", "conv1.weight", "blocks.0.conv1.weight"):
        assert torch.equal(after[name], before[name]), name
    for name in after.keys() - {"fc.weight", "fc.bias", "conv1.weight", "blocks.0.conv1.weight"}:
        assert torch.equal(after[name], source.state_dict()[name]), name


def test_nothing_in_common_is_refused_in_a_line_and_loads_nothing():
    network = small()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    weights = {"a.num_batches_tracked": torch.tensor(3), "bn.num_batches_tracked": torch.tensor(3)}
    with pytest.raises(ConfigError, match=r"^no tensor of it fits this network .* it has a.num_b\S+, bn\.\S+, and the"):
        load_fitting(network, weights)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            lambda: nn.Linear(2, 2),
            r"weights.pth holds more than tensors .* save torch.save\(network.state_dict\(\), file",
        ),
        (lambda: {"epoch": 3}, "weights.pth holds no tensors by name"),
        (lambda: [torch.ones(2)], "weights.pth holds no tensors by name"),
    ],
)
def test_a_file_that_is_no_weights_is_refused_in_a_line(tmp_path, content, message):
    torch.save(content(), tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match=message) as refusal:
        read_weights(tmp_path / "weights.pth")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_damaged_file_is_refused_in_a_line(tmp_path, name):
    (tmp_path / name).write_bytes(b"no weights at all")
    with pytest.raises(ConfigError, match=f"init: .*{name} cannot be read: "):
        read_weights(tmp_path / name)


def test_a_run_starts_from_another_runs_best_and_says_which(pretrained):
    best = pretrained / "checkpoints" / "best.ckpt"
    still = ["optimizer.lr=1e-30", "trainer.max_epochs=1", "freeze=backbone"]
    run(compose([*SMALL, *still, "init=pre", "name=tuned"]))
    told = result_of(Path("outputs/tuned"))["init"]
    assert told == {"file": str(best), "sha256": hashlib.sha256(best.read_bytes()).hexdigest()}
    before, after = state(pretrained, "best")["state_dict"], state(Path("outputs/tuned"))["state_dict"]
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved <= {"network.bn2.running_mean", "network.bn2.running_var", "network.bn2.num_batches_tracked"}
    assert (
        "init=outputs/pre/checkpoints/best.ckpt: 14 of the network's 14" in Path("outputs/tuned/train.log").read_text()
    )


def test_a_run_that_goes_on_needs_the_weights_no_more_and_refuses_others(pretrained):
    overrides = [*SMALL, "trainer.max_epochs=3", "init=pre", "name=tuned"]
    folder, best = Path("outputs/tuned"), pretrained / "checkpoints" / "best.ckpt"
    run(compose([*overrides, "name=whole"]))
    stopped(folder, overrides, RuntimeError("stopped"))
    kept = best.read_bytes()
    best.write_bytes(kept + b"\0")
    with pytest.raises(ConfigError, match=r"init=pre: outputs/pre/checkpoints/best.ckpt is no longer the file"):
        run(compose(overrides))
    best.unlink()
    run(compose(overrides))
    assert_same_run(folder, Path("outputs/whole"))
    assert result_of(folder)["init"] == result_of(Path("outputs/whole"))["init"]


def test_other_weights_are_another_run(pretrained):
    overrides = [*SMALL, "trainer.max_epochs=2", "init=pre", "name=tuned"]
    stopped(Path("outputs/tuned"), overrides, RuntimeError("stopped"))
    with pytest.raises(ConfigError, match="init: pre there, null here"):
        compose([line for line in overrides if line != "init=pre"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["init=prr"], "init=prr: there is no such file, and no run of that name in outputs; did you mean pre?"),
        (["init=[pre]"], r"expected a run, a checkpoint or a file of weights"),
        (["init=pre", "action=lr_find", "ckpt=outputs/pre/checkpoints/best.ckpt"], "both weights to start from"),
        (["init=pre", "action=test", "name=pre"], "init=pre with action=test: it trains nothing"),
        (["freeze=backbone", "action=predict", "name=pre"], "freeze=backbone with action=predict: it trains nothing"),
        (["thaw_at=1"], "thaw_at=1 without freeze="),
        (["freeze=backbone", "thaw_at=30"], "thaw_at=30 with trainer.max_epochs=30: epochs count from 0"),
        (["freeze=backbone", "thaw_at=0"], "thaw_at=0: expected a whole number of at least 1"),
        (["freeze=[]"], r"freeze=\[\]: expected backbone, or globs"),
        (["freeze=3"], "freeze=3: expected backbone, or globs"),
        (["freeze=backbone", "thaw_at=1", "trainer=fsdp", "trainer.devices=2"], "cannot be combined with .*=fsdp"),
    ],
)
def test_what_cannot_be_meant_is_refused_without_torch(pretrained, overrides, message):
    with pytest.raises(ConfigError, match=message) as refusal:
        compose(["trainer.max_epochs=30", *overrides] if "action" not in str(overrides) else overrides)
    assert "\n" not in str(refusal.value)


def test_a_run_that_kept_no_best_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(compose([*WINE, "trainer.max_epochs=1", "name=pre", "keep=[]"]))
    with pytest.raises(
        ConfigError, match=r"init=pre needs outputs/pre/checkpoints/best.ckpt, which the run did not keep"
    ):
        compose([*WINE, "init=pre"])


def test_nothing_in_common_is_refused_by_a_run_before_it_trains(pretrained):
    with pytest.raises(
        ConfigError, match=r"^init=outputs/pre/checkpoints/best.ckpt: no tensor of it fits this network"
    ):
        run(compose(["model=net", "data=wine", "logger=none", "init=pre", "name=other"]))
    assert result_of(Path("outputs/other"))["status"] == "refused"


THAWED = {
    "sgd onecycle": [],
    "adamw cosine, many steps": ["optimizer=adamw", "scheduler=cosine", "steps_per_execution=4"],
    "layer rates": ["optimizer.layer_decay=0.5", "optimizer=adamw"],
}


@pytest.mark.parametrize("kind", rest_slow(THAWED, lambda case: case == ("sgd onecycle",)))
@pytest.mark.parametrize("epoch", rest_slow([0, 1, 2], lambda case: case[0] == 1), ids=["before", "at", "after"])
def test_a_run_stopped_around_its_thaw_ends_as_the_unbroken_one(tmp_path, kind, epoch):
    overrides = [*WINE, "trainer.max_epochs=4", "freeze=backbone", "thaw_at=1", *THAWED[kind]]
    run(compose(overrides), folder=tmp_path / "whole")
    part = tmp_path / "part"
    stopped(part, overrides, KeyboardInterrupt() if epoch else RuntimeError("stopped"), epoch)
    run(compose(overrides), folder=part)
    assert_same_run(part, tmp_path / "whole")


def test_until_the_thaw_nothing_frozen_moves_and_from_then_on_all_does(tmp_path):
    overrides = [*WINE, "optimizer=adamw", "freeze=backbone", "thaw_at=2", "keep=[best,last,every_1_epochs]"]
    run(compose(overrides), folder=tmp_path)
    first, second, third = (state(tmp_path, f"after_{epochs}_epochs") for epochs in (1, 2, 3))
    frozen = [name for name in first["state_dict"] if not name.startswith("network.fc2")]
    assert frozen
    for name in frozen:
        assert torch.equal(first["state_dict"][name], second["state_dict"][name]), name
        assert not torch.equal(second["state_dict"][name], third["state_dict"][name]), name
    assert len(second["optimizer_states"][0]["state"]) == 2
    assert len(third["optimizer_states"][0]["state"]) == 6
    assert "epoch 2: thawed, 4 tensors more are trained" in (tmp_path / "train.log").read_text()


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.slow  # two processes
def test_two_processes_freeze_and_thaw_as_one(tmp_path, epochs):
    common = ["freeze=backbone", "thaw_at=1", "optimizer.layer_decay=0.5", f"trainer.max_epochs={epochs}"]
    common = [line for line in common if epochs > 1 or not line.startswith("thaw_at")]
    run(compose([*TWO_PROCESSES, *common]), folder=tmp_path / "two")
    run(compose([*TWO_PROCESSES, *common, "trainer=cpu", "data.batch_size=8"]), folder=tmp_path / "one")
    two, one = state(tmp_path / "two")["state_dict"], state(tmp_path / "one")["state_dict"]
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-10, msg=name)


MANY = [pytest.param(norm, marks=pytest.mark.endurance) for norm in ("mabn", "switchable", "whitening")]


@pytest.mark.slow  # two processes
@pytest.mark.parametrize("norm", ["batch", *MANY])
def test_two_processes_change_no_bit_of_a_frozen_part(tmp_path, monkeypatch, norm):
    monkeypatch.chdir(tmp_path)
    own = ["model=resnet", "data.size=8", "data.channels=1", "logger=none", f"norm={norm}", *SHORT]
    own += ["trainer.sync_batchnorm=false"] if norm != "batch" else []
    run(compose([*own, "trainer.max_epochs=1", "name=pre"]))
    two = ["trainer=ddp_cpu", "trainer.max_epochs=2", "data.batch_size=16"]
    run(compose([*own, *two, "init=pre", "freeze=backbone", "name=two", *own[-1:]]))
    before, after = state(Path("outputs/pre"), "best")["state_dict"], state(Path("outputs/two"))["state_dict"]
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"network.fc.weight", "network.fc.bias"}


@pytest.mark.slow
def test_a_compiled_network_freezes_and_thaws_as_another(tmp_path):
    overrides = [*WINE, "freeze=backbone", "thaw_at=1"]
    run(compose(overrides), folder=tmp_path / "plain")
    run(compose([*overrides, "compile=true"]), folder=tmp_path / "compiled")
    plain, compiled = state(tmp_path / "plain")["state_dict"], state(tmp_path / "compiled")["state_dict"]
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-4, atol=1e-5, msg=name)
