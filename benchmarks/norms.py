"""Normalization layers, forward and backward, against `nn.BatchNorm2d` in the same layout and the public versions.

    python benchmarks/norms.py [--quick]

Every option of conf/norm that fits images, at two shapes, NCHW and channels_last, float32 on the CPU with
`allocator=fast`. The competitors take turns; each round takes the best of a few calls, ratios are medians over rounds.
"""

import argparse
import time
from collections.abc import Callable

import hydra.utils
import timm.layers
import torch
import torchvision
from common import machine, ratio, rounds, table
from torch import nn

from normlab.allocator import set_allocator
from normlab.config import options, read_option

SHAPES = [(128, 64, 32, 32), (64, 256, 14, 14)]
PUBLIC = {
    "torchvision FrozenBatchNorm2d": torchvision.ops.FrozenBatchNorm2d,
    "timm EvoNorm2dS0": timm.layers.EvoNorm2dS0,
    "timm FilterResponseNormTlu2d": timm.layers.FilterResponseNormTlu2d,
    "timm LayerNorm2d": timm.layers.LayerNorm2d,
    "timm RmsNorm2d": timm.layers.RmsNorm2d,
}


def timed(layer: nn.Module, x: torch.Tensor, upstream: torch.Tensor, calls: int) -> float:
    best = float("inf")
    for _ in range(calls):
        x.grad = None
        start = time.perf_counter()
        layer(x).backward(upstream)
        best = min(best, time.perf_counter() - start)
    return best


def competitors(shape: tuple[int, ...], channels_last: bool, calls: int) -> dict[str, Callable[[], float]]:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.randn(shape).to(memory_format=layout).requires_grad_()
    upstream = torch.randn(shape).to(memory_format=layout)
    layers = {name: hydra.utils.instantiate(read_option("norm", name))(shape[1], 2) for name in options("norm")}
    layers |= {name: kind(shape[1]) for name, kind in PUBLIC.items()}
    del layers["none"]
    return {name: lambda layer=layer: timed(layer, x, upstream, calls) for name, layer in layers.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one call each, to see that it runs")
    calls, count = (1, 1) if parser.parse_args().quick else (5, 5)
    set_allocator("fast")
    columns, names = {}, []
    for shape in SHAPES:
        for channels_last in (False, True):
            results = rounds(competitors(shape, channels_last, calls), count)
            names = list(results)
            title = f"{shape}{' channels_last' if channels_last else ''}".replace(" ", "\u00a0")
            columns[title] = {name: ratio(results, name, "batch") for name in results}
            columns[title]["batch, ms"] = min(results["batch"]) * 1e3
    print(f"{machine()}\n")
    rows = [["batch, ms", *(f"{column['batch, ms']:.1f}" for column in columns.values())]]
    rows += [[name, *(f"{column[name]:.2f}" for column in columns.values())] for name in names]
    print(table(["", *columns], rows))


if __name__ == "__main__":
    main()
