"""Two processes on the CPU against one, and what synchronised batch norm adds to a step.

    python benchmarks/distributed.py [--quick]

Each process has one thread and the same batch, so that work grows with processes; of two batches the larger is bound by
computing. Within one pair of processes the competitors take turns: one process alone, two that do not talk,
DistributedDataParallel with plain batch norm, and the same with statistics over both. Efficiency is of time; processor
time, which gloo's threads are part of and waiting is not, tells how much of the rest is work. Then an estimate for GPUs
from counts of collectives and bytes, with its assumptions.
"""

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path

import hydra.utils
import torch
import torch.multiprocessing
from common import machine, table
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from normlab.config.options import read_option
from normlab.norms.batch import Batch
from normlab.norms.common.synchronise import Synchronise
from normlab.runner.allocator import set_allocator
from normlab.runner.trainer import KEPT_BUFFERS

CASES = [("mynet", 64), ("mynet", 256), ("resnet", 128), ("resnet", 512)]  # and the batch of each process
WAYS = ("alone", "side by side", "DDP", "DDP, synchronised")
LAYERS, CHANNELS = 53, 26_560  # batch norms of ResNet-50, and their channels
LATENCY, BANDWIDTH = 20e-6, 25e9  # a collective's hop in seconds, and bytes a second of each GPU's link


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = hydra.utils.instantiate(read_option("model", name), _partial_=True)
    return network(norm=Batch(), input_shape=(3, 32, 32), out_features=10)


def steps(network: nn.Module, x: torch.Tensor, y: torch.Tensor, count: int) -> tuple[float, float]:
    """Seconds of a training step and of the processor in it, medians of `count`."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    taken = []
    for _ in range(count):
        start, worked = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
        taken.append((time.perf_counter() - start, time.process_time() - worked))
    seconds, processor = zip(*taken, strict=True)
    return statistics.median(seconds), statistics.median(processor)


def process(rank: int, folder: str, count: int, rounds: int) -> None:
    torch.set_num_threads(1)
    set_allocator("fast")
    distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    found: dict[tuple[str, int], dict[str, list[tuple[float, float]]]] = {}
    for name, batch in CASES:
        x, y = torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))
        plain = built(name)
        networks = {
            "alone": plain,
            "side by side": plain,
            "DDP": DistributedDataParallel(built(name), **KEPT_BUFFERS),
            "DDP, synchronised": DistributedDataParallel(Synchronise().apply(built(name)), **KEPT_BUFFERS),
        }
        found[name, batch] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way in WAYS:
                distributed.barrier()
                if way != "alone" or rank == 0:
                    found[name, batch][way].append(steps(networks[way], x, y, count))
    if rank == 0:
        torch.save(found, f"{folder}/found")
    distributed.destroy_process_group()


def ratio(ours: list[tuple[float, float]], theirs: list[tuple[float, float]], which: int) -> float:
    """The median over rounds of ours / theirs, of seconds (0) or of the processor's (1)."""
    return statistics.median(a[which] / b[which] for a, b in zip(ours, theirs, strict=True))


def estimate(gpus: int) -> tuple[float, float]:
    """Seconds that a step of ResNet-50 waits for statistics, in its forward and in its backward pass."""
    hops = math.log2(gpus)
    gathered = gpus * (2 * CHANNELS + LAYERS) * 4  # every rank's counts, means and variances arrive at each
    summed = 2 * 2 * CHANNELS * 4  # a sum sends and receives what it sums
    return LAYERS * hops * LATENCY + gathered / BANDWIDTH, LAYERS * hops * LATENCY + summed / BANDWIDTH


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps, to see that it runs")
    count, rounds = (2, 1) if parser.parse_args().quick else (15, 5)
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(process, (folder, count, rounds), nprocs=2)
        found = torch.load(Path(folder, "found"))
    rows = []
    for (name, batch), ways in found.items():
        cells = [f"{min(seconds for seconds, _ in ways[way]) * 1e3:.1f}" for way in WAYS]
        cells += [f"{ratio(ways['alone'], ways[way], 0):.2f}" for way in WAYS[1:]]
        cells += [f"{ratio(ways[way], ways['alone'], 1):.2f}" for way in WAYS[1:]]
        rows.append([f"{name}, {batch}", *cells, f"{ratio(ways[WAYS[3]], ways[WAYS[2]], 0):.2f}"])
    print(f"{machine()}, of which each process takes one\n")
    efficiency, work = ([f"{what}, {way}" for way in WAYS[1:]] for what in ("efficiency", "processor time"))
    header = ["ms a step", *WAYS, *efficiency, *work, "synchronised / DDP"]
    print(table(header, rows), "\n")
    guesses = [[str(gpus), *(f"{seconds * 1e3:.1f}" for seconds in estimate(gpus))] for gpus in (8, 32, 128, 1024)]
    print(table(["GPUs, estimated", "forward, ms", "backward, ms"], guesses))


if __name__ == "__main__":
    main()
