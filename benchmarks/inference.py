"""Images a second of a trained network on the CPU, by every way that normlab has to run it.

    python benchmarks/inference.py [--quick]

normlab's ResNet-8 on 32×32 and torchvision's resnet18 on 64×64 pixels, with batch norm, float32, at batch 1 and 128.
The first row is the bare loop of timm's benchmark.py (`--bench inference`): the network in evaluation mode under
inference_mode, the same batch again and again. The ways take turns; ratios to that loop are medians over rounds. Needs
an idle machine: two threads that wait for a busy core take many times as long.
"""

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from common import machine, ratio, rounds, table
from torch import nn

from normlab import fold
from normlab.models.resnet import ResNet
from normlab.norms.batch import Batch
from normlab.runner import exports
from normlab.runner.exports.common.graph import Served, Source
from normlab.runner.exports.common.outside import SECONDS, speed

BARE = "bare loop, as timm's"


def bare(network: nn.Module, x: torch.Tensor, seconds: float) -> float:
    """timm's `InferenceBenchmarkRunner` without its events: samples a second of the network alone."""
    with torch.inference_mode():
        network(x)
        start, done = time.perf_counter(), 0
        while (passed := time.perf_counter() - start) < seconds:
            network(x)
            done += len(x)
    return done / passed


def by_torch(network: nn.Module) -> Callable[[np.ndarray], Any]:
    def run(samples: np.ndarray) -> Any:
        with torch.no_grad():
            return network(torch.from_numpy(samples)).numpy()

    return run


def ways(network: nn.Module, samples: np.ndarray, place: Path, quick: bool) -> dict[str, Callable[[np.ndarray], Any]]:
    """How a network is run: arrays in, arrays out. The exported files lie in `place`."""
    x = torch.from_numpy(samples)
    found = {"eager": by_torch(network), "folded": by_torch(fold(network, x[:2]))}
    compiled = copy.deepcopy(network)
    compiled.compile(dynamic=True)
    found |= {} if quick else {"compiled": by_torch(compiled)}
    source = Source(Served(nn.Identity(), network, nn.Identity()), x[:2])
    for name in ("torch_export", "onnx") if quick else ("torch_export", "aoti", "onnx"):
        form = exports.module(name)
        file = str(place / form.FILE)
        form.write(source, file)
        found[name] = form.load(file, torch.get_num_threads())
    form.quantize(file, str(place / "int8.onnx"), samples)
    return found | {"onnx int8": form.load(str(place / "int8.onnx"), torch.get_num_threads())}


def rates(
    network: nn.Module, found: dict[str, Callable[[np.ndarray], Any]], samples: np.ndarray, count: int
) -> dict[str, list[float]]:
    """Images a second of each way, in each round, with all samples as one batch."""
    measured = {BARE: lambda: bare(network, torch.from_numpy(samples), SECONDS)}
    measured |= {way: partial(speed, run, samples, len(samples)) for way, run in found.items()}
    return rounds(measured, count)


def shown(rates: dict[str, list[float]], way: str) -> str:
    return f"{statistics.median(rates[way]):,.0f} ({ratio(rates, way, BARE):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one network, one round, nothing compiled")
    quick = parser.parse_args().quick
    torch.manual_seed(0)
    networks: dict[str, tuple[Callable[[], nn.Module], int]] = {
        "resnet, 32×32": (lambda: ResNet(Batch(), (3, 32, 32), 10), 32),
        "torchvision resnet18, 64×64": (lambda: torchvision.models.resnet18(num_classes=10), 64),
    }
    print(machine())
    for name, (make, size) in list(networks.items())[: 1 if quick else None]:
        samples = np.random.default_rng(0).normal(size=(128, 3, size, size)).astype("float32")
        network = make()
        network(torch.from_numpy(samples[:32]))  # running statistics that are not those of the start
        network.eval().requires_grad_(False)
        with tempfile.TemporaryDirectory() as place:
            found = ways(network, samples, Path(place), quick)
            small, large = (rates(network, found, samples[:batch], 1 if quick else 5) for batch in (1, 128))
        print(f"\n{name}, images/s (ratio to the bare loop)\n")
        rows = [[way, shown(small, way), shown(large, way)] for way in (BARE, *found)]
        print(table(["", "batch 1", "batch 128"], rows), flush=True)


if __name__ == "__main__":
    main()
