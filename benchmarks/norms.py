"""Normalization layers, forward and backward: time and memory beside `nn.BatchNorm2d` and the public versions.

    python benchmarks/norms.py [--quick]

Every option of conf/norm that fits images, at two shapes, NCHW and channels_last, float32 on the CPU with
`allocator=fast`. The competitors take turns; each round takes the best of a few calls, ratios are medians over rounds.
Convolutions are timed apart, where an option changes them. Memory is the peak beyond input and gradient of the output,
each in a process of its own with the C library's allocator, in sizes of the input.
"""

import argparse
import multiprocessing
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

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
    "timm SplitBatchNorm2d": timm.layers.SplitBatchNorm2d,
    "timm EvoNorm2dB0": timm.layers.EvoNorm2dB0,
    "timm EvoNorm2dS0": timm.layers.EvoNorm2dS0,
    "timm FilterResponseNormTlu2d": timm.layers.FilterResponseNormTlu2d,
    "timm LayerNorm2d": timm.layers.LayerNorm2d,
    "timm RmsNorm2d": timm.layers.RmsNorm2d,
}
PUBLIC_CONVOLUTIONS = {"timm StdConv2d": timm.layers.StdConv2d, "timm ScaledStdConv2d": timm.layers.ScaledStdConv2d}


def layers(features: int) -> dict[str, nn.Module]:
    """The layers of all options, and the public ones, by name."""
    ours = {name: _option(name)(features, 2) for name in options("norm")}
    found = ours | {name: kind(features) for name, kind in PUBLIC.items()}
    return {name: layer for name, layer in found.items() if not isinstance(layer, nn.Identity)}


def convolutions(features: int) -> dict[str, nn.Module]:
    """torch's 3×3 convolution, and those that options put in its place."""
    found: dict[str, nn.Module] = {"nn.Conv2d": nn.Conv2d(features, features, 3, padding=1)}
    for name in options("norm"):
        conv = _option(name).conv2d(features, features, 3, padding=1)
        if type(conv) is not nn.Conv2d:
            found[f"{name}: {type(conv).__name__}"] = conv
    return found | {n: kind(features, features, 3, padding=1) for n, kind in PUBLIC_CONVOLUTIONS.items()}


def _option(name: str) -> Any:
    return hydra.utils.instantiate(read_option("norm", name))


def tensors(shape: tuple[int, ...], channels_last: bool) -> tuple[torch.Tensor, torch.Tensor]:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x, upstream = (torch.randn(shape).to(memory_format=layout) for _ in range(2))
    return x.requires_grad_(), upstream


def timed(layer: nn.Module, x: torch.Tensor, upstream: torch.Tensor, calls: int) -> float:
    best = float("inf")
    for _ in range(calls):
        x.grad = None
        start = time.perf_counter()
        layer(x).backward(upstream)
        best = min(best, time.perf_counter() - start)
    return best


def speed(make: Callable[[int], dict[str, nn.Module]], beside: str, calls: int, count: int) -> str:
    columns: dict[str, dict[str, float]] = {}
    for shape in SHAPES:
        for channels_last in (False, True):
            x, upstream = tensors(shape, channels_last)
            found = make(shape[1])
            if channels_last:
                for layer in found.values():
                    layer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
            results = rounds({name: partial(timed, m, x, upstream, calls) for name, m in found.items()}, count)
            title = f"{shape}{' channels_last' if channels_last else ''}".replace(" ", "\u00a0")
            columns[title] = {name: ratio(results, name, beside) for name in results}
            columns[title][f"{beside}, ms"] = min(results[beside]) * 1e3
    names = list(next(iter(columns.values())))
    rows = [[f"{beside}, ms", *(f"{column[f'{beside}, ms']:.1f}" for column in columns.values())]]
    rows += [[name, *(f"{column[name]:.2f}" for column in columns.values())] for name in names[:-1]]
    return table(["", *columns], rows)


def memory() -> str:
    """Peaks of one forward and backward pass after another, which leaves out what only a first call takes."""
    rows = []
    for name in layers(SHAPES[0][1]):
        peaks = []
        for channels_last in (False, True):
            with multiprocessing.get_context("spawn").Pool(1) as alone:
                peaks.append(alone.apply(peak, (name, channels_last)))
        rows.append([name, *(f"{value:.1f}" for value in peaks)])
    return table(["", f"{SHAPES[0]}", f"{SHAPES[0]} channels_last"], rows)


def peak(name: str, channels_last: bool) -> float:
    x, upstream = tensors(SHAPES[0], channels_last)
    layer = layers(SHAPES[0][1])[name]
    timed(layer, x, upstream, 1)
    x.grad = None
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _kib("VmRSS")
    timed(layer, x, upstream, 1)
    return (_kib("VmHWM") - before) * 1024 / (x.numel() * x.element_size())


def _kib(key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one call each and no memory, to see that it runs")
    quick = parser.parse_args().quick
    calls, count = (1, 1) if quick else (5, 7)
    set_allocator("fast")
    print(f"{machine()}\n")
    print(speed(layers, "batch", calls, count), "\n")
    print(speed(convolutions, "nn.Conv2d", calls, count), "\n")
    if not quick:
        print(memory())


if __name__ == "__main__":
    main()
