"""Two processes with sync batch norm are one process with batch norm on the joined batch."""

import pytest
import torch
import torch.multiprocessing as processes
from torch import distributed, nn

from normlab.norms.sync import Sync


def joined() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 4, 3, 3, dtype=torch.float64, generator=generator) * 2 + 5


def one_rank(rank: int, sizes: list[int], folder: str) -> None:
    distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=len(sizes))
    layer = Sync()(4, 2).double()
    nn.init.constant_(layer.weight, 1.5)
    x = joined().split(sizes)[rank].requires_grad_()
    upstream = torch.arange(joined().numel(), dtype=torch.float64).view_as(joined()).sin().split(sizes)[rank]
    y = layer(x)
    y.backward(upstream)
    result = {"y": y.detach(), "x": x.grad, "weight": layer.weight.grad, "bias": layer.bias.grad}
    torch.save(result | {"state": layer.state_dict()}, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize("sizes", [[3, 3], [5, 1], [6, 0]])
def test_two_ranks_are_one(sizes, tmp_path):
    processes.spawn(one_rank, (sizes, str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    reference = nn.BatchNorm2d(4).double()
    nn.init.constant_(reference.weight, 1.5)
    x = joined().requires_grad_()
    y = reference(x)
    y.backward(torch.arange(x.numel(), dtype=torch.float64).view_as(x).sin())
    close = {"rtol": 0, "atol": 1e-10}
    torch.testing.assert_close(torch.cat([r["y"] for r in ranks]), y.detach(), **close)
    torch.testing.assert_close(torch.cat([r["x"] for r in ranks]), x.grad, **close)
    torch.testing.assert_close(sum(r["weight"] for r in ranks), reference.weight.grad, **close)
    torch.testing.assert_close(sum(r["bias"] for r in ranks), reference.bias.grad, **close)
    for rank in ranks:
        torch.testing.assert_close(rank["state"], dict(reference.state_dict()), **close)
