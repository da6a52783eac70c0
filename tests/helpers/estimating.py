"""Two processes that estimate the statistics of a network together."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, multiprocessing

from helpers.networks import SHAPE, built
from normlab import estimate_statistics


def batches(ranks: tuple[int, ...] = (0, 1)) -> list[Tensor]:
    """Batches of several sizes, those of rank 0 and then those of rank 1, far from alike."""
    torch.manual_seed(1)
    of_ranks = [[torch.randn(size, *SHAPE) * (1 + rank) + 3 * rank for size in (8, 8, 5 - rank)] for rank in (0, 1)]
    return [batch for rank in ranks for batch in of_ranks[rank]]


def as_rank(rank: int, folder: str, norm: str, in_order: bool) -> None:
    """Estimates with the batches of this rank, and saves the state."""
    distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    network = built("resnet", norm)
    estimate_statistics(network, batches((rank,)), in_order=in_order)
    torch.save(network.state_dict(), Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


def together(*of_run: Any) -> None:
    """Runs both ranks, as forks of a process in which nothing has trained yet: see helpers/warm.py."""
    multiprocessing.start_processes(as_rank, of_run, nprocs=2, start_method="fork")
