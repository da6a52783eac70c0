"""What a training step costs beside the network: ours against bare Lightning and a loop by hand.

    python benchmarks/steps.py [--quick]

`net`, ten features, ten classes, batch 100, CPU; SGD with nesterov momentum and a one-cycle schedule in every
competitor, batches cut from tensors by a permutation. Ours runs with all defaults on: metrics, progress bar,
metrics.csv, TensorBoard, best and last checkpoint, and a validation of 100 samples an epoch that the others do not
have. Microseconds a step, epoch ends included, without the first epoch, in which code is compiled.
"""

import argparse
import io
import statistics
import tempfile
import time

import lightning
import torch
from common import machine, ratio, rounds, table
from lightning import Callback, Trainer
from rich.console import Console
from torch import nn

import normlab
from normlab.callbacks import progress
from normlab.data.common.base import DataModule
from normlab.data.common.batches import Batches, EpochOrder
from normlab.models.net import Net
from normlab.norms.batch import Batch
from normlab.tasks.optimizers import parameter_groups

SAMPLES, BATCH = 50_000, 100


class Made(DataModule):
    """Random features and classes."""

    task, input_shape, out_features = "classify", (10,), 10

    def load(self):
        random = torch.Generator().manual_seed(0)
        return torch.randn(SAMPLES, 10, generator=random), torch.randint(10, (SAMPLES,), generator=random)

    def setup(self, stage=None):
        x, y = self.load()
        self.splits = {"train": (x, y), "val": (x[:100], y[:100]), "test": (x[:100], y[:100])}


def parts(epochs: int):
    torch.manual_seed(0)
    network = Net(Batch(), (10,), 10)
    optimizer = torch.optim.SGD(parameter_groups(network), lr=0.02, momentum=0.9, nesterov=True, weight_decay=5e-3)
    steps = epochs * SAMPLES // BATCH
    return network, optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=steps)


def by_hand(epochs: int, is_compiled: bool = False) -> float:
    network, optimizer, scheduler = parts(epochs)
    if is_compiled:
        network.compile()
    (x, y), loss = Made().load(), nn.CrossEntropyLoss()
    start = 0.0
    for epoch in range(epochs):
        if epoch == 1:
            start = time.perf_counter()
        order = torch.randperm(SAMPLES)
        for first in range(0, SAMPLES, BATCH):
            index = order[first : first + BATCH]
            optimizer.zero_grad()
            loss(network(x[index]), y[index]).backward()
            optimizer.step()
            scheduler.step()
    return a_step(time.perf_counter() - start, epochs)


def a_step(seconds: float, epochs: int) -> float:
    """Microseconds, of the seconds that all epochs but the first have taken."""
    return seconds / ((epochs - 1) * SAMPLES / BATCH) * 1e6


class Bare(lightning.LightningModule):
    def __init__(self, epochs: int):
        super().__init__()
        self.network, self.made_optimizer, self.scheduler = parts(epochs)
        self.loss = nn.CrossEntropyLoss()

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.loss(self.network(x), y)

    def configure_optimizers(self):
        return [self.made_optimizer], [{"scheduler": self.scheduler, "interval": "step"}]


class Clock(Callback):
    """Time from the start of the second epoch to the end of training."""

    def on_train_epoch_start(self, trainer, *_):
        if trainer.current_epoch == 1:
            self.start = time.perf_counter()

    def on_train_end(self, *_):
        self.seconds = time.perf_counter() - self.start


def bare(epochs: int) -> float:
    clock = Clock()
    off = {"enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False, "logger": False}
    trainer = Trainer(accelerator="cpu", max_epochs=epochs, callbacks=[clock], **off)
    x, y = Made().load()
    trainer.fit(Bare(epochs), Batches(x, y, BATCH, EpochOrder(SAMPLES, 0)))
    return a_step(clock.seconds, epochs)


def ours(epochs: int, *overrides: str) -> float:
    clock = Clock()
    config = normlab.compose(["model=net", "trainer=cpu", f"trainer.max_epochs={epochs}", *overrides])
    with tempfile.TemporaryDirectory() as folder:
        normlab.run(config, folder, Made(BATCH), callbacks=[clock])
    return a_step(clock.seconds, epochs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it runs")
    epochs, count = (2, 1) if parser.parse_args().quick else (5, 5)
    progress.console = Console(file=io.StringIO(), force_terminal=True)  # a bar needs a terminal
    competitors = {
        "by hand": lambda: by_hand(epochs),
        "bare Lightning": lambda: bare(epochs),
        "ours, steps_per_execution=1": lambda: ours(epochs, "steps_per_execution=1"),
        "ours, steps_per_execution=32": lambda: ours(epochs, "steps_per_execution=32"),
        "by hand, compiled": lambda: by_hand(epochs, is_compiled=True),
        "ours, steps_per_execution=32 compile=true": lambda: ours(epochs, "steps_per_execution=32", "compile=true"),
    }
    results = rounds(competitors, count)
    print(f"\n{machine()}\n")
    rows = [
        [
            name,
            f"{statistics.median(results[name]):.0f}",
            f"{ratio(results, name, 'by hand'):.2f}",
            f"{ratio(results, name, 'bare Lightning'):.2f}",
        ]
        for name in competitors
    ]
    print(table(["", "µs a step", "× by hand", "× bare Lightning"], rows))


if __name__ == "__main__":
    main()
