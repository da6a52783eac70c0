"""Two processes that share statistics are one process on the joined batch; statistics merged are those of the union.

One pair of processes walks all cases (`walk`) and leaves what it found; the tests compare that with one process.
"""

import copy
import datetime
import itertools
import math
import pickle
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as processes
from helpers import warm
from helpers.cases import options, rest_slow
from hydra.utils import instantiate
from torch import distributed, fx, nn
from torch.fx.experimental.optimization import fuse
from torch.nn import functional as F

from normlab.config.options import read_option
from normlab.models.resnet import ResNet
from normlab.norms.batch import Batch
from normlab.norms.common.base import Norm
from normlab.norms.common.declaration import declaration
from normlab.norms.common.synchronise import Synchronise, merge_statistics
from normlab.norms.domain import DomainLayer, set_domain

SPACES = {0: (), 1: (7,), 2: (4, 3), 3: (2, 3, 2)}
SPLITS = [(3, 3), (5, 1), (6, 0), (1, 1)]  # samples of the two ranks
KEYS = {"renorm": {"start": 0, "end": 12}}  # bounds that are open, and not to their full
EXACT = {"rtol": 0, "atol": 1e-10}
OPTIONS = options("norm")


def option(name: str, **keys) -> Norm:
    return instantiate(read_option("norm", name), **KEYS.get(name, {}), **keys)


SYNCHRONISABLE = [name for name in OPTIONS if (found := declaration(option(name)(12, 2))) and found.synchronisable]
REFUSED = [
    name
    for name in OPTIONS
    if (found := declaration(option(name)(12, 2))) and found.batch_stats and not found.synchronisable
]
WITH_RUNNING = [name for name in OPTIONS if any("running_" in key for key, _ in option(name)(12, 2).named_buffers())]


def cases() -> list[tuple[str, int, tuple[int, int], bool]]:
    """Option, dimensions, samples of the ranks, channels_last."""
    return [
        (name, dims, split, last)
        for name, dims, split in itertools.product(SYNCHRONISABLE, SPACES, SPLITS)
        if not (name == "ghost" and dims == 0 and ghost_size(split) == 1)  # one value per channel
        for last in ([False, True] if dims == 2 else [False])
    ]


def ghost_size(split: tuple[int, int]) -> int:
    """The most samples that divide both ranks' batches."""
    return math.gcd(*split) if split != (6, 0) else 3


def layer_of(name: str, dims: int, split: tuple[int, int]) -> nn.Module:
    torch.manual_seed(0)
    layer = option(name, **({"size": ghost_size(split)} if name == "ghost" else {}))(12, dims).double()
    randomise(layer)
    return layer


def randomise(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    for key, buffer in layer.named_buffers():
        if key.endswith("num_batches_tracked"):
            buffer.fill_(5)
        elif key.endswith("running_var"):
            nn.init.uniform_(buffer, 0.5, 2.0)
        elif key.endswith("running_mean"):
            nn.init.normal_(buffer)


def joined(dims: int, split: tuple[int, int], step: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(sum(split), 12, *SPACES[dims], dtype=torch.float64, generator=generator) * 2 + 5 - step


def two_steps(
    layer: nn.Module, dims: int, split: tuple[int, int], last: bool, rank: int | None, device: str = "cpu"
) -> dict:
    """Outputs, gradients and state of two batches, of `rank`'s part or of the whole; a domain layer's second domain."""
    outputs, of_x = [], []
    for step in range(2):
        if isinstance(layer, DomainLayer):
            set_domain(layer, step)
        x, upstream = joined(dims, split, step).to(device), joined(dims, split, step + 2).sin().to(device)
        if rank is not None:
            x, upstream = x.split(split)[rank], upstream.split(split)[rank]
        if last:
            x = x.to(memory_format=torch.channels_last)
        x = x.detach().requires_grad_()
        y = layer(x)
        outputs.append(y.detach().clone().cpu())
        F.relu(y, inplace=True).backward(upstream)
        of_x.append(x.grad.cpu())
    layer.cpu()
    gradients = {key: parameter.grad for key, parameter in layer.named_parameters()}
    return {"y": outputs, "x": of_x, "gradients": gradients, "state": layer.state_dict()}


class Collectives(Counter):
    """Counts the collectives of this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        super().__init__()
        for name in ("all_gather", "all_reduce"):
            monkeypatch.setattr(distributed, name, self.counting(name, getattr(distributed, name)))

    def counting(self, name: str, collective):
        def go(*args):
            self[name] += 1
            return collective(*args)

        return go

    def of(self, call) -> tuple[object, int]:
        before = self.total()
        return call(), self.total() - before


def walk(rank: int, folder: str) -> None:
    """What each of the two processes does."""
    torch.set_num_threads(1)
    meet(rank, f"{folder}/meet")
    found = {"cases": {case: in_a_rank(*case, rank) for case in cases()}}
    found["collectives"] = {name: collectives_of(name, rank) for name in SYNCHRONISABLE}
    found["large mean"] = {name: large_mean(name, rank) for name in SYNCHRONISABLE}
    found["bfloat16"] = {name: in_bfloat16(name, rank) for name in SYNCHRONISABLE}
    found["compiled"] = compiled(rank)
    found["networks"] = {name: trained(name, rank).state_dict() for name in NETWORKS}
    found["merged"] = {name: merged(name, rank) for name in WITH_RUNNING}
    found["errors"] = errors(rank)
    if rank == 0:  # the other process does not come along
        found["frozen"] = frozen()
    distributed.destroy_process_group()
    meet(rank, f"{folder}/again", datetime.timedelta(seconds=2))
    found["alone"] = alone(rank, folder)
    with open(f"{folder}/{rank}.pickle", "wb") as file:
        pickle.dump(found, file)


def meet(rank: int, file: str, timeout: datetime.timedelta | None = None) -> None:
    distributed.init_process_group("gloo", f"file://{file}", rank=rank, world_size=2, timeout=timeout)


def in_a_rank(name: str, dims: int, split: tuple[int, int], last: bool, rank: int, device: str = "cpu") -> dict:
    layer = layer_of(name, dims, split).to(device)
    if name != "sync":  # it synchronises by itself
        Synchronise().apply(layer)
    return two_steps(layer, dims, split, last, rank, device)


def walk_on_a_gpu(rank: int, folder: str, device: str) -> None:
    """What each of two processes does that share a GPU; gloo carries its tensors, which NCCL would not on one."""
    meet(rank, f"{folder}/meet")
    ours = {case: in_a_rank(*case, rank, device) for case in cases()}
    torchs = {}
    for dims, split, last in OF_TORCH:
        layer = nn.SyncBatchNorm.convert_sync_batchnorm(layer_of("batch", dims, split)).to(device)
        torchs["batch", dims, split, last] = two_steps(layer, dims, split, last, rank, device)
    with open(f"{folder}/{rank}.pickle", "wb") as file:
        pickle.dump((ours, torchs), file)
    distributed.destroy_process_group()


OF_TORCH = [(dims, split, last) for name, dims, split, last in cases() if name == "batch" and 0 not in split]


def collectives_of(name: str, rank: int) -> tuple[int, int]:
    """How many collectives a forward and a backward pass take."""
    layer = Synchronise().apply(layer_of(name, 2, (3, 3)))
    x = joined(2, (3, 3)).split(3)[rank].requires_grad_()
    with pytest.MonkeyPatch.context() as monkeypatch:
        count = Collectives(monkeypatch)
        y, forward = count.of(lambda: layer(x))
        _, backward = count.of(lambda: y.sum().backward())
    return forward, backward


def large_mean(name: str, rank: int) -> dict:
    layer = Synchronise().apply(layer_of(name, 2, (3, 3)).float())
    y = layer((joined(2, (3, 3)) + 1e4).float().split(3)[rank])
    return {"y": y.detach(), "state": layer.state_dict()}


def in_bfloat16(name: str, rank: int) -> dict:
    layer = Synchronise().apply(layer_of(name, 2, (3, 3)).float())
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(joined(2, (3, 3)).bfloat16().split(3)[rank])
    return {"y": y.detach(), "state": layer.state_dict()}


def compiled(rank: int) -> dict:
    layer = Synchronise().apply(layer_of("batch", 2, (3, 3)))
    layer.compile(backend="aot_eager", fullgraph=True)
    return two_steps(layer, 2, (3, 3), False, rank)


NETWORKS = {
    "batch": {},
    "renorm": {},
    "batch_channel": {},
    "batch_fast": {"checkpointing": True},
}


def network_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    return ResNet(option(name), (3, 8, 8), 10, **NETWORKS[name]).double()


def trained(name: str, rank: int | None) -> nn.Module:
    """Five steps of batches of 8, or of 4 on each of two ranks with averaged gradients."""
    network = network_of(name)
    if rank is not None:
        Synchronise().apply(network)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
    for step in range(5):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(8, 3, 8, 8, dtype=torch.float64, generator=generator)
        target = torch.randint(10, (8,), generator=generator)
        if rank is not None:
            x, target = x.split(4)[rank], target.split(4)[rank]
        optimizer.zero_grad()
        F.cross_entropy(network(x), target).backward()
        if rank is not None:
            for parameter in network.parameters():
                distributed.all_reduce(parameter.grad)
                parameter.grad /= 2
        optimizer.step()
    return network


def merged(name: str, rank: int) -> dict:
    """State before and after merging, and once more; the ranks trained apart."""
    layer = option(name)(12, 2).double()
    if name != "sync":  # it would have trained together
        for step in range(3):
            layer(torch.randn(16, 12, 4, 3, dtype=torch.float64) * (1 + rank) + rank + step)
    network = nn.Sequential(layer, nn.BatchNorm1d(3, momentum=None).double())
    network[1](union()[rank])
    before = copy.deepcopy(network.state_dict())
    with pytest.MonkeyPatch.context() as monkeypatch:
        _, collectives = Collectives(monkeypatch).of(lambda: merge_statistics(network))
    after = copy.deepcopy(network.state_dict())
    with torch.inference_mode():  # the trainer validates so
        merge_statistics(network)
    again = copy.deepcopy(network.state_dict())
    network[1](union()[rank].requires_grad_()).sum().backward()  # still trains
    return {"before": before, "after": after, "again": again, "collectives": collectives}


def union() -> torch.Tensor:
    """Values of both ranks, (ranks, N, 3), far from alike."""
    x = torch.randn(2, 10, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return x + torch.tensor([1.0, 4.0], dtype=torch.float64).view(2, 1, 1)


def errors(rank: int) -> dict[str, str]:
    """What is said where the joined batch has one value, and where the ranks' domains differ."""
    norm = Synchronise().apply(nn.Sequential(layer_of("batch", 0, (1, 1))))
    domain = Synchronise().apply(layer_of("domain", 2, (3, 3)))
    calls = {"one value": lambda: norm(torch.randn(1 - rank, 12).double()), "domain": lambda: set_domain(domain, rank)}
    said = {}
    for name, call in calls.items():
        with pytest.raises(ValueError, match=".") as caught:
            call()
        said[name] = str(caught.value)
    return said


def frozen() -> dict:
    """A frozen layer before and after a batch within a synchronised network."""
    found = {}
    for name in SYNCHRONISABLE:
        network = nn.Sequential(layer_of(name, 2, (3, 3))).train()
        network[0].eval()
        before = copy.deepcopy(network.state_dict())
        expected = network(joined(2, (3, 3)))
        y = Synchronise().apply(network)(joined(2, (3, 3)))
        found[name] = {"y": y, "expected": expected, "before": before, "after": network.state_dict()}
    return found


def alone(rank: int, folder: str) -> list[str]:
    """What rank 0 says where the other does not come."""
    done = Path(folder) / "done"
    if rank:
        while not done.exists():
            time.sleep(0.1)
        return []
    said = []
    for network in (Synchronise().apply(nn.Sequential(nn.BatchNorm2d(12))), option("sync")(12, 2)):
        with pytest.raises(RuntimeError) as caught:
            network(torch.randn(3, 12, 2, 2))
        said.append(str(caught.value))
    done.touch()
    return said


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    folder = str(tmp_path_factory.mktemp("ranks"))
    done = warm.call("helpers.processes.forked_pair", __file__, "walk", folder).wait()
    assert done.returncode == 0, done.stderr
    return [pickle.loads(Path(folder, f"{rank}.pickle").read_bytes()) for rank in range(2)]


def check(ranks: list[dict], whole: dict) -> None:
    for key in ("y", "x"):
        for step in range(2):
            torch.testing.assert_close(torch.cat([r[key][step] for r in ranks]), whole[key][step], **EXACT)
    assert whole["gradients"]
    for key, gradient in whole["gradients"].items():
        torch.testing.assert_close(sum(r["gradients"][key] for r in ranks), gradient, **EXACT)
    for rank in ranks:
        torch.testing.assert_close(rank["state"], whole["state"], **EXACT)


def on_one(name: str, dims: int, split: tuple[int, int], last: bool) -> dict:
    """The two steps of a layer in one process, on the joined batch."""
    layer = layer_of(name, dims, split)
    if name == "sync":
        state = layer.state_dict()
        layer = Batch()(12, dims).double()
        layer.load_state_dict(state)
    return two_steps(layer, dims, split, last, None)


@pytest.mark.parametrize("case", rest_slow(((case,) for case in cases()), lambda each: each[0][1] in (0, 2)), ids=str)
def test_two_ranks_are_one_on_the_joined_batch(found, case):
    check([rank["cases"][case] for rank in found], on_one(*case))


@pytest.mark.gpu
def test_on_a_gpu_two_ranks_are_one_and_torchs_sync_batch_norm(tmp_path):
    """The CPU's joined batch is the third that both are compared with."""
    processes.spawn(walk_on_a_gpu, (str(tmp_path), "cuda"), nprocs=2)
    ranks = [pickle.loads((tmp_path / f"{rank}.pickle").read_bytes()) for rank in range(2)]
    for found in zip(*ranks, strict=True):  # ours, then torch's
        assert found[0]
        for case in found[0]:
            check([rank[case] for rank in found], on_one(*case))


@pytest.mark.parametrize("name", SYNCHRONISABLE)
def test_one_collective_forward_and_one_backward(found, name):
    for rank in found:
        assert rank["collectives"][name] == (1, 0 if name == "ghost" else 1)


@pytest.mark.parametrize("name", SYNCHRONISABLE)
def test_a_large_mean_does_not_cancel_in_float32(found, name):
    layer = layer_of(name, 2, (3, 3))
    expected = layer(joined(2, (3, 3)) + 1e4)
    y = torch.cat([rank["large mean"][name]["y"] for rank in found])
    torch.testing.assert_close(y.double(), expected.detach(), rtol=0.01, atol=0.05)
    for rank in found:
        state = {key: value.double() for key, value in rank["large mean"][name]["state"].items()}
        expected = {key: value.double() for key, value in layer.state_dict().items()}
        torch.testing.assert_close(state, expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", SYNCHRONISABLE)
def test_autocast_keeps_statistics_in_float32(found, name):
    layer = layer_of(name, 2, (3, 3))
    y = torch.cat([rank["bfloat16"][name]["y"] for rank in found])
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), layer(joined(2, (3, 3)).bfloat16().double()), rtol=0.05, atol=0.1)
    state = found[0]["bfloat16"][name]["state"]
    assert all(value.dtype == torch.float32 for value in state.values() if value.is_floating_point())
    torch.testing.assert_close(state, found[1]["bfloat16"][name]["state"], rtol=0, atol=0)


def test_compiled(found):
    whole = two_steps(layer_of("batch", 2, (3, 3)), 2, (3, 3), False, None)
    check([rank["compiled"] for rank in found], whole)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_trains_as_on_one_process(found, name):
    whole = trained(name, None).state_dict()
    for rank in found:
        torch.testing.assert_close(rank["networks"][name], whole, **EXACT)


@pytest.mark.parametrize("name", SYNCHRONISABLE)
def test_a_frozen_layer_neither_communicates_nor_moves(found, name):
    layer = found[0]["frozen"][name]
    assert torch.equal(layer["y"], layer["expected"])
    torch.testing.assert_close(layer["after"], layer["before"], rtol=0, atol=0)


def test_a_rank_alone_is_told_where_it_waits(found):
    for said, layer in zip(found[0]["alone"], ("0", "a layer of norm=sync"), strict=True):
        assert said.startswith(f"rank 0 of 2 waited in vain for the others' statistics in {layer}: ")


def test_errors_name_the_layer(found):
    for rank in found:
        assert rank["errors"]["one value"] == "0: Expected more than 1 value per channel over all processes"
        assert "batches are of domains 0, 1; " in rank["errors"]["domain"]


@pytest.mark.parametrize("name", WITH_RUNNING)
def test_merged_statistics_are_of_all_ranks(found, name):
    before, after = ([rank["merged"][name][key] for rank in found] for key in ("before", "after"))
    assert found[0]["merged"][name]["collectives"] == 1
    for key, mine in before[0].items():
        other = before[1][key]
        if "running_" not in key:
            for rank in range(2):
                assert torch.equal(after[rank][key], before[rank][key])
            continue
        expected = (mine + other) / 2
        mean = key.replace("running_var", "running_mean")
        if mean != key and mean in before[0]:
            expected = expected + ((before[0][mean] - before[1][mean]) / 2) ** 2
        assert name in ("sync", "frozen") or key.startswith("0.further") or not torch.equal(mine, other)
        for rank in range(2):
            torch.testing.assert_close(after[rank][key], expected, **EXACT)
            torch.testing.assert_close(found[rank]["merged"][name]["again"][key], after[rank][key], rtol=0, atol=0)


def test_merged_statistics_are_those_of_the_union(found):
    """mean_r σ²_r + var_r μ_r is the union's variance, exactly where σ²_r is biased; the running one is unbiased."""
    x = union()
    after = found[0]["merged"]["batch"]["after"]
    torch.testing.assert_close(after["1.running_mean"], x.flatten(0, 1).mean(0), **EXACT)
    excess = x.var(1).mean(0) - x.var(1, correction=0).mean(0)
    expected = x.flatten(0, 1).var(0, correction=0) + excess
    torch.testing.assert_close(after["1.running_var"], expected, **EXACT)


def attributes(network: nn.Module) -> dict[str, dict[str, object]]:
    """All that modules are and hold, with the tensors and hooks themselves."""
    return {
        name: {key: dict(value) if isinstance(value, dict) else value for key, value in vars(module).items()}
        | {"module": module, "type": type(module)}
        for name, module in network.named_modules()
    }


@pytest.mark.parametrize("name", SYNCHRONISABLE)
def test_apply_and_revert_leave_what_was(name):
    shared = option(name)(12, 2)
    network = nn.Sequential(shared, nn.Conv2d(12, 12, 1), shared, option(name)(12, 2).eval(), nn.GroupNorm(3, 12))
    shared.register_forward_hook(lambda *_: None)
    before, state = attributes(network), copy.deepcopy(network.state_dict())
    plugin = Synchronise()
    declared = {key: declaration(module) for key, module in network.named_modules()}
    assert plugin.apply(network) is network
    once = attributes(network)
    assert plugin.apply(network) is network
    assert attributes(network) == once
    assert {key: declaration(module) for key, module in network.named_modules()} == declared
    assert network[0] is network[2]
    assert network[0].synchronised == "0"
    torch.testing.assert_close(network.state_dict(), state, rtol=0, atol=0)
    reverted = copy.deepcopy(network)
    assert plugin.revert(network) is network
    assert attributes(network) == before
    plugin.revert(reverted)
    assert [type(module) for module in reverted.modules()] == [type(module) for module in network.modules()]
    assert all("synchronised" not in vars(module) for module in reverted.modules())


@pytest.mark.parametrize("dims", SPACES)
def test_without_several_processes_a_switched_batch_norm_is_torchs(dims):
    for keys in ({}, {"affine": False}, {"momentum": None}):
        plain = Batch(**keys)(12, dims).double()
        switched = Synchronise().apply(copy.deepcopy(plain))
        x = joined(dims, (3, 3))
        assert type(switched) is not type(plain)
        assert torch.equal(switched(x), plain(x))
        assert torch.equal(switched.eval()(x), plain.eval()(x))
        torch.testing.assert_close(switched.state_dict(), plain.state_dict(), rtol=0, atol=0)


def test_a_reverted_network_fuses():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    Synchronise().revert(Synchronise().apply(network))
    assert type(network[1]) is nn.BatchNorm2d
    fused = fuse(network)
    assert isinstance(fused, fx.GraphModule)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())


@pytest.mark.parametrize("name", REFUSED)
def test_other_layers_with_batch_statistics_are_refused(name):
    network = nn.Sequential(nn.BatchNorm2d(12), option(name)(12, 2))
    with pytest.raises(ValueError, match=rf"norm={name} \(1\) has batch statistics .*trainer.sync_batchnorm=false"):
        Synchronise().apply(network)
    assert type(network[0]) is nn.BatchNorm2d
    network[1].eval()
    if declaration(network[1]).running_stats:
        Synchronise().apply(network)  # frozen
    else:
        with pytest.raises(ValueError, match=f"norm={name}"):
            Synchronise().apply(network)


def test_what_nobody_vouched_for_is_refused():
    class Other(nn.BatchNorm2d):
        pass

    for layer in (Other(3), nn.BatchNorm2d(3, track_running_stats=False)):
        with pytest.raises(ValueError, match=rf"{type(layer).__name__} \(0.0\) has batch statistics"):
            Synchronise().apply(nn.Sequential(nn.Sequential(layer)))


def test_layers_of_each_sample_are_left_alone():
    for name in OPTIONS:
        found = declaration(option(name)(12, 2))
        if found is None or not found.batch_stats:
            network = nn.Sequential(option(name)(12, 2))
            before = attributes(network)
            assert attributes(Synchronise().apply(network)) == before
