"""Every norm trains under every precision of the trainer, on one process and on two that synchronise."""

import pytest
import torch
import torch.multiprocessing as processes
from helpers.cases import options
from hydra.utils import instantiate
from lightning.pytorch.plugins.precision import DoublePrecision, HalfPrecision, MixedPrecision, Precision
from torch import distributed, nn

from normlab.config.options import read_option
from normlab.norms.common.declaration import declaration
from normlab.norms.common.synchronise import Synchronise

PRECISIONS = {
    "32-true": Precision,
    "64-true": DoublePrecision,
    "bf16-mixed": lambda: MixedPrecision("bf16-mixed", "cpu"),
    "16-mixed": lambda: MixedPrecision("16-mixed", "cpu"),
    "bf16-true": lambda: HalfPrecision("bf16-true"),
    "16-true": lambda: HalfPrecision("16-true"),
}
OFF = {"32-true": 1e-4, "64-true": 1e-10}  # how far off outputs may be, of their size; of 16 bits a layer's roundings


def steps(name: str, precision: Precision, layout: torch.memory_format, rank: int | None = None) -> list[torch.Tensor]:
    """Outputs of two training steps and of evaluation, in float64."""
    torch.manual_seed(0)
    norm = instantiate(read_option("norm", name))
    network = nn.Sequential(norm.conv2d(3, 8, 3), norm(8, 2), norm.act(nn.ReLU()))
    batches = torch.randn(3, 16, 3, 6, 6)
    if rank is not None:
        _synchronise(network)
        batches = batches.chunk(2, 1)[rank]
    network = precision.convert_module(network).to(memory_format=layout)
    found = []
    for step, batch in enumerate(batches):
        network.train(step < 2)
        x = precision.convert_input(batch).to(memory_format=layout)
        with precision.forward_context():
            y = network(x)
        if network.training:
            y.float().square().mean().backward()
            assert all(bool(torch.isfinite(p.grad).all()) for p in network.parameters() if p.grad is not None)
        found.append(y.detach().double())
    return found


def _synchronise(network: nn.Module) -> None:
    found = declaration(network[1])
    if found is not None and found.synchronisable:
        Synchronise().apply(network)


def check(found: list[torch.Tensor], expected: list[torch.Tensor], precision: str) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).norm() <= OFF.get(precision, 0.03) * theirs.norm()


@pytest.fixture(scope="module")
def expected() -> dict[str, list[torch.Tensor]]:
    return {name: steps(name, DoublePrecision(), torch.contiguous_format) for name in options("norm")}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", options("norm"))
def test_one_process(name, precision, layout, expected):
    check(steps(name, PRECISIONS[precision](), layout), expected[name], precision)


def walk(rank: int, folder: str) -> None:
    """What each of two processes does."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    found = {
        (name, precision): steps(name, PRECISIONS[precision](), torch.contiguous_format, rank)
        for name in options("norm")
        for precision in PRECISIONS
    }
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes(tmp_path, expected):
    """Their outputs are those of one process on the joined batch, for every norm that can be synchronised."""
    processes.spawn(walk, (str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert len(ranks[0]) == len(options("norm")) * len(PRECISIONS)
    for (name, precision), of_first in ranks[0].items():
        declared = declaration(instantiate(read_option("norm", name))(8, 2))
        if declared is None or not declared.batch_stats or (declared.synchronisable and name != "ghost"):
            joined = [torch.cat(both) for both in zip(of_first, ranks[1][name, precision], strict=True)]
            check(joined, expected[name], precision)
