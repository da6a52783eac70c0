"""What `compile=true` makes of a step on the CPU, beside torch's defaults and norms compiled alone.

    python benchmarks/compiling.py [--quick]

Forward and backward, 128 images of 3 × 32 × 32, float32, `allocator=fast`. Each way is measured in turns with the eager
network; ratios are medians over rounds. torch's defaults choose channels_last by themselves, and keep masks of ReLUs.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch._functorch.config as passes
import torch._inductor.config as kernels
from common import machine, ratio, rounds, table
from torch import Tensor, nn
from torch.nn import functional as F

from normlab.config.instantiate import make_node
from normlab.config.options import read_option
from normlab.models.mynet import MyNet
from normlab.models.resnet import ResNet
from normlab.norms.common.declaration import declaration
from normlab.runner.allocator import set_allocator
from normlab.runner.compiling import compile_network

NETWORKS = {"mynet": MyNet, "resnet": ResNet}
NORMS = ("batch", "ghost", "frn", "evonorm_s0")
LAYOUTS = {"": torch.contiguous_format, " channels_last": torch.channels_last}


def compile_all(network: nn.Module) -> None:
    compile_network(network, on_cpu=True)


def compile_norms(network: nn.Module) -> None:
    for layer in network.modules():
        if declaration(layer) is not None:
            compile_network(layer, on_cpu=True)


def compile_by_default(network: nn.Module) -> None:
    network.compile()


WAYS: dict[str, Callable[[nn.Module], None]] = {
    "compile=true": compile_all,
    "its norms alone": compile_norms,
    "torch's defaults": compile_by_default,
}


@contextmanager
def settings(way: str) -> Iterator[None]:
    """Forgets compiled code, and sets what torch itself would set, for its defaults."""
    torch.compiler.reset()
    kept = passes.recompute_views, kernels.layout_optimization
    if compile_by_default is WAYS[way]:
        passes.recompute_views, kernels.layout_optimization = False, True
    yield
    passes.recompute_views, kernels.layout_optimization = kept


def step(network: nn.Module, x: Tensor, y: Tensor) -> float:
    start = time.perf_counter()
    for parameter in network.parameters():
        parameter.grad = None
    F.cross_entropy(network(x), y).backward()
    return time.perf_counter() - start


def measured(network: nn.Module, x: Tensor, y: Tensor, way: str, count: int) -> tuple[float, float, float]:
    """Seconds of an eager step, how many times that a compiled one takes, and seconds of the first compiled one."""
    eager, compiled = copy.deepcopy(network), copy.deepcopy(network)
    with settings(way):
        WAYS[way](compiled)
        first = step(compiled, x, y)
        step(eager, x, y)
        results = rounds({"eager": lambda: step(eager, x, y), way: lambda: step(compiled, x, y)}, count)
    return statistics.median(results["eager"]), ratio(results, way, "eager"), first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of few images, to see that it runs")
    quick = parser.parse_args().quick
    set_allocator("fast")
    samples, size, count = (8, 8, 1) if quick else (128, 32, 9)
    norms = NORMS[:1] if quick else NORMS
    print(f"{machine()}\n")
    rows = []
    for name, kind in NETWORKS.items():
        for layout, memory_format in LAYOUTS.items():
            x = torch.randn(samples, 3, size, size).to(memory_format=memory_format)
            y = torch.randint(10, (samples,))
            for norm in norms:
                torch.manual_seed(0)
                network = kind(make_node(read_option("norm", norm), "norm"), (3, size, size), 10)
                network.to(memory_format=memory_format)  # pyright: ignore[reportCallIssue]
                ways = [measured(network, x, y, way, count) for way in WAYS]
                eager = statistics.median(seconds for seconds, *_ in ways) * 1e3
                cells = [f"{times:.2f}" for _, times, _ in ways]
                rows.append([f"{name}{layout}, {norm}", f"{eager:.0f}", *cells, f"{ways[0][2]:.0f}"])
                print(rows[-1], flush=True)
    print("\n" + table(["", "eager, ms", *(f"{way}, ×" for way in WAYS), "first step, s"], rows))


if __name__ == "__main__":
    main()
