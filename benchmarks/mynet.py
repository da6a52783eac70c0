"""Training speed of `mynet` on the CPU: ours against the tutorial's loop.

    python benchmarks/mynet.py [--quick]

Digits as 3×32×32, batch 128, the same optimizer, schedule and epochs, no augmentation. Images a second of training
from the second epoch on; peak memory of the whole process; test accuracy as mean ± sd over seeds. "With epoch ends"
adds what ours does between epochs and the loop does not: validation, metrics, checkpoints, TensorBoard; an epoch has
ten steps only. Each competitor runs in a process of its own, since the allocator belongs to a process.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from common import machine, ratio, rounds, table
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import normlab
from normlab.data.digits import Digits
from normlab.models.mynet import MyNet
from normlab.norms.batch import Batch
from normlab.runner import trainer as trainer_module
from normlab.runner.allocator import set_allocator

BATCH, LR, MOMENTUM, DECAY = 128, 0.02, 0.9, 5e-3


def loop(epochs: int, seed: int) -> dict[str, float]:
    """The tutorial's loop as anyone would write it."""
    torch.manual_seed(seed)
    data = Digits(batch_size=BATCH)
    data.setup()
    loader = DataLoader(TensorDataset(*data.splits["train"]), batch_size=BATCH, shuffle=True)
    network = MyNet(Batch(), data.input_shape, 10)
    optimizer = torch.optim.SGD(network.parameters(), lr=LR, momentum=MOMENTUM, nesterov=True, weight_decay=DECAY)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LR, total_steps=epochs * len(loader))
    criterion = nn.CrossEntropyLoss()
    start = 0.0
    for epoch in range(epochs):
        if epoch == 1:
            start = time.perf_counter()
        network.train()
        for x, y in loader:
            optimizer.zero_grad()
            criterion(network(x), y).backward()
            optimizer.step()
            scheduler.step()
    seconds = time.perf_counter() - start
    network.eval()
    x, y = data.splits["test"]
    with torch.no_grad():
        accuracy = (network(x).argmax(1) == y).float().mean().item()
    speed = (epochs - 1) * len(data.splits["train"][0]) / seconds
    return {"speed": speed, "whole": speed, "accuracy": accuracy}


def ours(epochs: int, seed: int, *overrides: str) -> dict[str, float]:
    """`python train.py` with all defaults but the augmentation, timed inside."""
    starts: list[float] = []
    ends: list[float] = []

    class Clock(trainer_module.EpochSeed):
        def on_train_epoch_start(self, *args):
            super().on_train_epoch_start(*args)
            starts.append(time.perf_counter())
            ends.append(0.0)

        def on_train_batch_end(self, *_):
            ends[-1] = time.perf_counter()

        def on_train_end(self, *_):
            starts.append(time.perf_counter())

    trainer_module.EpochSeed = Clock
    settings = [f"data.batch_size={BATCH}", "data.shift=0", f"trainer.max_epochs={epochs}", f"seed={seed}"]
    settings += [f"optimizer.lr={LR}", f"optimizer.momentum={MOMENTUM}", f"optimizer.weight_decay={DECAY}"]
    data = Digits(batch_size=BATCH)
    data.setup()
    images = len(data.splits["train"][0]) * (epochs - 1)
    with tempfile.TemporaryDirectory() as folder:
        result = normlab.run(normlab.compose([*settings, *overrides]), folder)
    training = sum(end - start for start, end in zip(starts[1:-1], ends[1:], strict=True))
    accuracy = result.metrics["test/acc"]
    return {"speed": images / training, "whole": images / (starts[-1] - starts[1]), "accuracy": accuracy}


def loop_fast_allocator(epochs: int, seed: int) -> dict[str, float]:
    set_allocator("fast")
    return loop(epochs, seed)


LOOP = "tutorial's loop"
COMPETITORS = {
    LOOP: loop,
    "the same, allocator=fast": loop_fast_allocator,
    "ours": ours,
    "ours, allocator=default": lambda *args: ours(*args, "allocator=default"),
    "ours, compile=true": lambda *args: ours(*args, "compile=true"),
    "ours, experiment=fast_cpu": lambda *args: ours(*args, "experiment=fast_cpu"),
    "ours, experiment=fast_cpu compile=true": lambda *args: ours(*args, "experiment=fast_cpu", "compile=true"),
}


def measured(name: str, epochs: int, seed: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", name, "--epochs", str(epochs), "--seed", str(seed)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it runs")
    parser.add_argument("--one", choices=COMPETITORS, help=argparse.SUPPRESS)
    parser.add_argument("--epochs", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run = COMPETITORS[arguments.one](arguments.epochs, arguments.seed)
        print(json.dumps(run | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
        return
    epochs, count = (2, 1) if arguments.quick else (20, 3)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in COMPETITORS}

    def measure(name: str) -> float:
        runs[name].append(measured(name, epochs, seed=len(runs[name])))
        return runs[name][-1]["speed"]

    results = rounds({name: lambda name=name: measure(name) for name in COMPETITORS}, count)
    print(f"{machine()}, {epochs} epochs, {count} rounds\n")
    rows = []
    for name in COMPETITORS:
        accuracies = [run["accuracy"] for run in runs[name]]
        spread = f" ± {statistics.stdev(accuracies):.3f}" if count > 1 else ""
        rows.append(
            [
                name,
                f"{statistics.median(results[name]):.0f}",
                f"{ratio(results, name, LOOP):.2f}",
                f"{ratio(results, name, 'the same, allocator=fast'):.2f}",
                f"{statistics.median(run['whole'] for run in runs[name]):.0f}",
                f"{max(run['peak'] for run in runs[name]):.0f}",
                f"{statistics.mean(accuracies):.3f}{spread}",
            ]
        )
    header = [
        "",
        "images/s",
        "× the loop",
        "× the loop, allocator=fast",
        "with epoch ends",
        "peak MiB",
        "test accuracy",
    ]
    print(table(header, rows))


if __name__ == "__main__":
    main()
