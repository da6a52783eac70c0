"""A network cut over two processes is that of one: in training, in its files, and in what is said of it.

One pair of processes, as torchrun would start them, does all runs (`walk`); the tests compare them with runs of one.
"""

import json
import os
import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as processes
from helpers.cases import options
from helpers.folders import files, result_of, weights
from helpers.harm import harmed
from helpers.processes import RANKS
from hydra.utils import instantiate
from lightning import Callback
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from normlab import compose, run
from normlab.config.options import read_option
from normlab.distributed import devices
from normlab.errors import ConfigError
from normlab.folder.writing import write_config
from normlab.models.resnet import ResNet
from normlab.norms.batch import Batch
from normlab.norms.common.declaration import declaration
from normlab.norms.common.synchronise import Synchronise
from normlab.norms.domain import Domain
from normlab.runner.fsdp import HalfButNorms
from normlab.runner.units import blocks, check_shardable, norm_layers

EXACT = {"rtol": 0, "atol": 1e-10}
COMMON = ["name=x", "logger=none", "trainer.accelerator=cpu"]
TWO = [*COMMON, "trainer=torchrun", "trainer.strategy=fsdp", "data.batch_size=4"]
ONE = [*COMMON, "trainer=cpu", "data.batch_size=8"]
WINE = ["model=net", "data=wine", "trainer.max_epochs=2"]  # 15 steps an epoch; the last batch has 2 + 1 samples
SHORT = [f"trainer.limit_{stage}_batches={steps}" for stage, steps in (("train", 24), ("val", 3), ("test", 3))]
DIGITS = [*SHORT, "trainer.max_epochs=1", "optimizer.lr=0.001"]  # at a larger rate the first steps diverge
FLOAT64 = "trainer.precision=64-true"
LAYERS = {name: instantiate(read_option("norm", name))(12, 2) for name in options("norm")}
SYNCHRONISABLE = [name for name, layer in LAYERS.items() if (found := declaration(layer)) and found.synchronisable]
KEYS = {"ghost": ["norm.size=4", "data.drop_last=true"], "renorm": ["norm.start=0", "norm.end=12"]}

SAME = {  # runs of two processes that are those of one
    **{f"model={name}": [f"model={name}", *DIGITS] for name in ("mynet", "my_model", "resnet")},
    **{f"norm={name}": [*WINE, f"norm={name}", *KEYS.get(name, [])] for name in SYNCHRONISABLE},
    "clipped": [*WINE, "trainer.gradient_clip_val=0.01"],
    "agc": ["model=my_model", *DIGITS, "callbacks=agc"],
    "adamw": [*WINE, "optimizer=adamw"],
    "accumulated": [*WINE, "trainer.accumulate_grad_batches=2"],
    "checkpointing": ["model=resnet", "model.checkpointing=true", *DIGITS],
    "frozen": [*WINE, "freeze=backbone"],
    "rates by layer": [*WINE, "optimizer.layer_decay=0.5"],
    "summary": [*WINE, "callbacks=model_summary"],
}
PRECISIONS = ("bf16-mixed", "bf16-true")
SPOILT = ("training", "validation", "state")


class Seen(Callback):
    """Keeps what norm layers and convolutions compute in."""

    def __init__(self, file: str):
        self.file, self.types = file, {}

    def on_fit_start(self, trainer, task):
        for name, layer in task.network.named_modules():
            if declaration(layer) or isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(lambda layer, args, y, name=name: self.note(name, layer, y))

    def note(self, name, layer, y):
        held = [getattr(layer, key).dtype for key in ("weight", "running_var") if hasattr(layer, key)]
        if layer.training:
            self.types[name] = {str(kind) for kind in held}, str(y.dtype)

    def on_train_end(self, trainer, task):
        torch.save(self.types, f"{self.file}{trainer.global_rank}")


class Spoil(Callback):
    """Lets process 1 alone find NaN in the second batch of training or validation, or in its part of a weight."""

    def __init__(self, kind: str):
        self.kind = kind

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        if self.kind == "training" and trainer.global_rank == batch_idx == 1:
            batch[0][0] = float("nan")

    def on_validation_batch_start(self, trainer, task, batch, batch_idx):
        if self.kind == "validation" and not trainer.sanity_checking and trainer.global_rank == batch_idx == 1:
            batch[0][0] = float("nan")

    @torch.no_grad()
    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        if self.kind == "state" and trainer.global_rank == 1 and batch_idx == trainer.num_training_batches - 1:
            task.network.fc1.weight.to_local()[0, 0] = float("nan")


def configured(overrides, **callbacks):
    config = compose(overrides)
    config.callbacks = callbacks
    return config


def walk(rank: int, port: int, folder: Path) -> None:
    """What each of the two processes does."""
    os.environ |= RANKS | {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    for name, overrides in SAME.items():
        run(compose([*TWO, *overrides, FLOAT64]), folder=folder / name)
    # 27 samples to validate are 13 + 13 and 1 + 0
    run(compose([*TWO, *WINE, FLOAT64, "data.batch_size=13"]), folder=folder / "empty")
    for strategy in ("ddp", "fsdp"):
        apart = ["trainer.sync_batchnorm=false", "data.drop_last=true", f"trainer.strategy={strategy}"]
        run(compose([*TWO, *WINE, FLOAT64, *apart]), folder=folder / "apart" / strategy)
    small = [*TWO, "model=resnet", *DIGITS, "channels_last=false", "data.batch_size=8"]
    for precision in PRECISIONS:
        seen = {"_target_": "test_fsdp.Seen", "file": str(folder / f"{precision}.")}
        run(configured([*small, f"trainer.precision={precision}"], seen=seen), folder=folder / precision)
    run(compose([*small, "trainer.strategy=ddp", "trainer.precision=bf16-mixed"]), folder=folder / "bf16-mixed-ddp")
    os.chdir(folder)
    run(compose([*TWO, *WINE, FLOAT64, "name=looked_at"]))
    run(compose(["action=validate", "name=looked_at"]))
    errors = {}
    for kind in SPOILT:
        spoil = {"_target_": "test_fsdp.Spoil", "kind": kind}
        with pytest.raises((FloatingPointError, RuntimeError)) as caught:
            run(configured([*TWO, *WINE], spoil=spoil), folder=folder / kind)
        errors[kind] = f"{caught.type.__name__}: {caught.value}"
    (folder / f"errors{rank}.json").write_text(json.dumps(errors))
    (folder / f"classes{rank}.json").write_text(json.dumps(classes()))


def classes() -> list[str]:
    """The class of a norm layer that is synchronised before and after it is cut."""
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    found = []
    for change in (
        Synchronise().apply,
        lambda network: [fully_shard(layer, mesh=init_device_mesh("cpu", (2,))) for layer in network],
        Synchronise().revert,
        Synchronise().apply,
        Synchronise().revert,
    ):
        change(network)
        layer = network[1]
        assert declaration(layer).synchronisable
        assert isinstance(layer, nn.BatchNorm2d)
        found.append(type(layer).__name__)
    return found


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes.spawn(walk, (port, folder), nprocs=2)
    return folder


def assert_same_checkpoints(folder, other, which="last"):
    found, expected = (
        torch.load(path / "checkpoints" / f"{which}.ckpt", weights_only=True) for path in (folder, other)
    )
    assert found.keys() == expected.keys()
    assert list(found["state_dict"]) == list(expected["state_dict"])
    for key, value in expected["state_dict"].items():
        assert type(found["state_dict"][key]) is torch.Tensor
        torch.testing.assert_close(found["state_dict"][key], value, **EXACT, msg=key)
    [found], [expected] = found["optimizer_states"], expected["optimizer_states"]
    settings, others = ([{**group, "fused": ...} for group in held["param_groups"]] for held in (found, expected))
    assert settings == others
    assert found["state"].keys() == expected["state"].keys()
    for number, held in expected["state"].items():
        for key, value in held.items():
            torch.testing.assert_close(found["state"][number][key], value, **EXACT, msg=f"{number} {key}")


@pytest.mark.slow
@pytest.mark.parametrize("name", SAME)
def test_two_processes_train_the_network_of_one(name, pair, tmp_path):
    # torch has no fused SGD for shards; the fused one has moments of zeros for parameters that never had a gradient.
    one = run(compose([*ONE, *SAME[name], "optimizer.fused=false", FLOAT64]), folder=tmp_path)
    assert_same_checkpoints(pair / name, tmp_path)
    assert files(pair / name) == files(tmp_path)
    told, expected = result_of(pair / name), result_of(tmp_path)
    assert (told["world_size"], told["metrics"].keys()) == (2, one.metrics.keys())
    for key in ("status", "best", "epochs", "steps", "skipped", "parameters"):
        assert told[key] == expected[key], key
    for metric, value in one.metrics.items():
        assert told["metrics"][metric] == pytest.approx(value, rel=1e-6, abs=0), metric


@pytest.mark.slow
def test_a_process_without_samples_takes_part_in_validation(pair, tmp_path):
    one = run(compose([*ONE, *WINE, FLOAT64, "data.batch_size=26"]), folder=tmp_path)
    assert_same_checkpoints(pair / "empty", tmp_path)
    told = result_of(pair / "empty")
    assert (told["score"], told["metrics"]["test/acc"]) == (one.score, one.metrics["test/acc"])


@pytest.mark.slow
def test_statistics_that_are_not_synchronised_are_merged_as_under_ddp(pair):
    assert_same_checkpoints(pair / "apart" / "fsdp", pair / "apart" / "ddp")
    synchronised, merged = weights(pair / "norm=batch"), weights(pair / "apart" / "fsdp")
    assert not torch.allclose(synchronised["network.bn1.running_var"], merged["network.bn1.running_var"])


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_norm_layers_stay_in_float32(precision, pair):
    for rank in (0, 1):
        seen = torch.load(pair / f"{precision}.{rank}")
        norms = {name: held for name, (held, _) in seen.items() if "bn" in name}
        others = {name: held for name, (held, _) in seen.items() if "bn" not in name}
        assert len(norms) == 7
        assert len(others) == 9
        assert all(held == {"torch.float32"} for held in norms.values()), norms
        assert all(held == {"torch.bfloat16"} for held in others.values()), others
        assert all(output == "torch.bfloat16" for _, output in seen.values()), seen
    saved = weights(pair / precision)
    assert all(saved[key].dtype == torch.float32 for key in saved if "bn" in key and "num_batches" not in key)
    whole = torch.bfloat16 if precision == "bf16-true" else torch.float32
    assert saved["network.conv1.weight"].dtype == whole


@pytest.mark.slow
def test_mixed_precision_is_that_of_ddp(pair):
    """Parameters are gathered in the 16 bits that autocast would cast them to."""
    found, expected = weights(pair / "bf16-mixed"), weights(pair / "bf16-mixed-ddp")
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-7, msg=key)


@pytest.mark.slow
def test_what_is_not_finite_is_traced_by_the_process_that_has_it(pair):
    other, one = (json.loads((pair / f"errors{rank}.json").read_text()) for rank in (0, 1))
    assert one["training"].startswith("FloatingPointError: train/loss is nan in epoch 0, step 1: 1 of the batch's 4")
    assert one["validation"].startswith("FloatingPointError: val/loss is nan in epoch 0, step 15: 1 of the batch's")
    assert one["state"].startswith("FloatingPointError: fc1 (Linear) holds NaN or inf in weight in epoch 0, step 15")
    assert other["training"] == "PeerError: the loss of another process is not finite in epoch 0, step 1"
    assert other["validation"] == "PeerError: val/loss of another process is not finite in epoch 0, step 15"
    assert other["state"] == "PeerError: what another process holds is not finite in epoch 0, step 15"


@pytest.mark.slow
def test_a_run_is_looked_at_by_two_processes_and_by_one(pair, monkeypatch):
    monkeypatch.chdir(pair)
    score = result_of(pair / "outputs" / "looked_at")["score"]
    assert result_of(pair / "outputs" / "looked_at" / "validate")["score"] == score
    alone = run(compose(["action=validate", "name=looked_at", "trainer.devices=1", "trainer.num_nodes=1"]))
    assert alone.score == score


@pytest.mark.slow
def test_synchronised_layers_are_put_back_beneath_fully_shards_class(pair):
    expected = ["SynchronisedBatchNorm2d", "FSDPSynchronisedBatchNorm2d", "FSDPBatchNorm2d"]
    for rank in (0, 1):
        assert json.loads((pair / f"classes{rank}.json").read_text()) == [*expected, *expected[1:]]


@pytest.mark.slow
def test_a_killed_process_costs_nothing(tmp_path):
    """Started by train.py's own launcher, and with one process to look at the result."""
    settings = [*WINE, FLOAT64, "logger=none", "trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2"]
    settings += ["data.batch_size=4", "trainer.max_epochs=3"]
    never = run(compose(settings), folder=tmp_path / "never")
    harmed(tmp_path / "killed", settings, "kill")
    assert "was ended by SIGKILL; restart 1 of 3" in (tmp_path / "killed" / "train.log").read_text()
    found, expected = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("killed", "never")
    )
    for part in (lambda held: held["state_dict"], lambda held: held["optimizer_states"][0]["state"]):
        torch.testing.assert_close(part(found), part(expected), rtol=0, atol=0)
    best = torch.load(tmp_path / "never" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, best[key]) for key, value in never.task.state_dict().items())


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["trainer.devices=1"], "trainer.strategy=fsdp cuts a network over several processes, and there is one: set"),
        (["trainer.precision=16-mixed"], "trainer.precision=16-mixed cannot be combined with trainer.strategy=fsdp"),
        (["channels_last=true"], "channels_last=true cannot be combined with trainer.strategy=fsdp; use false"),
        (["compile=true"], "compile=true cannot be combined with trainer.strategy=fsdp; use false"),
        (["trainer.strategy=deepspeed"], "trainer.strategy=deepspeed: expected ddp or fsdp"),
        (["trainer.strategy=null"], "trainer.strategy=null: expected ddp or fsdp"),
    ],
)
def test_what_does_not_go_with_it_is_refused_without_torch(typed, message):
    with pytest.raises(ConfigError, match=message):
        compose(["trainer=fsdp", *typed])


def test_gpus_are_counted(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match="no GPU; trainer.accelerator=cpu trainer.devices=2 trains on"):
        devices.count(compose(["trainer=fsdp"]))
    monkeypatch.setattr(devices, "count", lambda config: 1)  # one GPU
    with pytest.raises(ConfigError, match="and there is one"):
        run(compose([*WINE, "trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2"]), folder=tmp_path)


def test_a_folder_goes_on_with_its_strategy_alone(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    two = [*WINE, "name=a", "trainer.accelerator=cpu", "trainer.devices=2"]
    folder = tmp_path / "outputs" / "a"
    folder.mkdir(parents=True)
    write_config(folder, compose([*two, "trainer=fsdp"]))
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(ConfigError, match="trainer.strategy: fsdp there, null here"):
        compose([*two, "trainer=ddp"])
    compose([*two, "trainer=fsdp"])


def test_units_are_the_elements_of_containers():
    network = ResNet(Batch(), (1, 8, 8), 10, depth=8)
    assert [name for name, _ in blocks(network)] == ["blocks.0", "blocks.1", "blocks.2"]
    nested = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.ModuleList([nn.Linear(2, 2)]))
    assert [name for name, _ in blocks(nested)] == ["0.0", "1.0"]
    domains = nn.Sequential(nn.Conv2d(1, 2, 1), Domain(num_domains=3)(2, 2))
    assert [name for name, _ in blocks(domains)] == ["0", "1"]
    assert list(norm_layers(domains)) == ["1"]


def test_parameters_that_cannot_be_cut_are_named():
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    check_shardable(tied)
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match="0.weight and 1.weight are one parameter, in units that trainer.strategy=fs"):
        check_shardable(tied)
    scale = nn.Linear(2, 2)
    scale.register_parameter("scale", nn.Parameter(torch.tensor(1.0)))
    with pytest.raises(ValueError, match="trainer.strategy=fsdp cannot cut scale, which is a single number"):
        check_shardable(scale)


def test_conversion_to_16_bits_again_leaves_norms_their_digits():
    network = ResNet(Batch(), (1, 8, 8), 10, depth=8)
    values = torch.rand_like(network.bn.running_mean)
    network.bn.running_mean.copy_(values)
    for _ in range(2):
        HalfButNorms().convert_module(network)
    assert torch.equal(network.bn.running_mean, values)
    assert network.bn.num_batches_tracked.dtype == torch.int64
    assert network.fc.weight.dtype == torch.bfloat16


@pytest.mark.gpu(devices=2)
def test_two_gpus_train_the_network_of_one(tmp_path):
    settings = ["model=resnet", *DIGITS, FLOAT64, "logger=none"]
    run(compose([*settings, "trainer=fsdp", "trainer.devices=2", "data.batch_size=4"]), folder=tmp_path / "two")
    run(compose([*settings, "trainer=gpu", "data.batch_size=8"]), folder=tmp_path / "one")
    assert_same_checkpoints(tmp_path / "two", tmp_path / "one")
