"""Normalization layers, forward and backward: time and memory beside `nn.BatchNorm2d` and the public versions.

    python benchmarks/norms.py [--quick]
    python benchmarks/norms.py --compiled [--quick]

Every option of conf/norm that fits images, at two shapes, NCHW and channels_last, float32 on the CPU with
`allocator=fast`. The competitors take turns; each round takes the best of a few calls, ratios are medians over rounds.
Convolutions are timed apart, where an option changes them. Memory is the peak beside the input and the output's
gradient, in sizes of the input. `--compiled` has each of our layers eager and compiled on its own in place of that.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import hydra.utils
import timm.layers
import torch
import torchvision
from common import machine, ratio, rounds, table
from torch import nn

from normlab.config.options import options, read_option
from normlab.runner.allocator import set_allocator
from normlab.runner.compiling import compile_network

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


def compiled(features: int) -> dict[str, nn.Module]:
    """The layers of all options, each eager and compiled."""
    torch.compiler.reset()
    found: dict[str, nn.Module] = {}
    for name in options("norm"):
        eager, layer = _option(name)(features, 2), _option(name)(features, 2)
        if not isinstance(layer, nn.Identity):
            compile_network(layer, on_cpu=True)
            found |= {name: eager, f"{name}, compiled": layer}
    return found


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
    """The most that a forward and backward pass holds of tensors beside its input, in sizes of that."""
    rows = {name: [name] for name in layers(SHAPES[0][1])}
    for channels_last in (False, True):
        x, upstream = tensors(SHAPES[0], channels_last)
        for name, layer in layers(SHAPES[0][1]).items():
            rows[name].append(f"{peak(layer, x, upstream) / (x.numel() * x.element_size()):.1f}")
    return table(["", f"{SHAPES[0]}", f"{SHAPES[0]} channels_last"], list(rows.values()))


def peak(layer: nn.Module, x: torch.Tensor, upstream: torch.Tensor) -> int:
    timed(layer, x, upstream, 1)  # the first call takes more
    x.grad = None
    with torch.profiler.profile(profile_memory=True) as profile:
        timed(layer, x, upstream, 1)
    assert profile.profiler is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    taken = (event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(itertools.accumulate(taken))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one call each and no memory, to see that it runs")
    parser.add_argument("--compiled", action="store_true", help="each of our layers, eager and compiled")
    given = parser.parse_args()
    quick = given.quick
    calls, count = (1, 1) if quick else (5, 7)
    set_allocator("fast")
    print(f"{machine()}\n")
    if given.compiled:
        print(speed(compiled, "batch", calls, count))
        return
    print(speed(layers, "batch", calls, count), "\n")
    print(speed(convolutions, "nn.Conv2d", calls, count), "\n")
    if not quick:
        print(memory())


if __name__ == "__main__":
    main()
