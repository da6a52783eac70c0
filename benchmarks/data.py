"""Data: an epoch of MNIST, decoded images a second, and a table, each beside what people use today.

    NORMLAB_DATA_DIR=<folder> python benchmarks/data.py [--quick]

The folder holds MNIST/, cifar10-jpeg/ (or their usual torchvision layout) and uci/bank-full.csv. Every competitor runs
in a process of its own, and they take turns.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from common import machine, ratio, rounds, table
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.utils.data import DataLoader, random_split
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy
from torchvision import transforms
from torchvision.datasets import MNIST, ImageFolder

import normlab
from normlab.config.instantiate import make
from normlab.models.mlp import MLP
from normlab.norms.batch import Batch
from normlab.runner.allocator import set_allocator

ROOT = Path(os.environ.get("NORMLAB_DATA_DIR", "data"))
BATCH, LR = 64, 0.001
MNIST_RUN = ["model=mlp", "data=mnist", f"data.batch_size={BATCH}", "optimizer=adamw", f"optimizer.lr={LR}"]
MNIST_RUN += ["optimizer.weight_decay=0", "scheduler=none", "logger=none", "trainer=cpu", "data.val_fraction=0.08333"]


class TheirModule(LightningModule):
    """What lightning-hydra-template's MNISTLitModule does in a step, metrics and logging included."""

    def __init__(self) -> None:
        super().__init__()
        self.net = MLP(Batch(), (1, 28, 28), 10)
        self.criterion = nn.CrossEntropyLoss()
        self.metrics = nn.ModuleDict(
            {f"{stage}_{name}": kind for stage in ("train", "val") for name, kind in self._metrics().items()}
        )

    @staticmethod
    def _metrics() -> dict[str, nn.Module]:
        return {"acc": MulticlassAccuracy(10, average="micro"), "loss": MeanMetric()}

    def _step(self, batch: Any, stage: str) -> torch.Tensor:
        x, y = batch
        output = self.net(x)
        loss = self.criterion(output, y)
        for name, value in (("loss", (loss,)), ("acc", (output.argmax(1), y))):
            metric: Any = self.metrics[f"{stage}_{name}"]
            metric(*value)
            self.log(f"{stage}/{name}", metric, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._step(batch, "val")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=LR)


def theirs(epochs: int) -> dict[str, float]:
    """lightning-hydra-template's defaults: a DataLoader decodes and normalises every image anew, and its callbacks."""
    form = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    with mnist_root() as root:
        train, val = random_split(MNIST(root, transform=form), [55_000, 5_000])
        following: dict[str, Any] = {"monitor": "val/acc", "mode": "max"}
        callbacks: list[Callback] = [RichProgressBar(), EarlyStopping(patience=100, **following)]
        callbacks.append(ModelCheckpoint(root / "checkpoints", save_last=True, **following))
        trainer = Trainer(max_epochs=epochs, accelerator="cpu", logger=False, callbacks=callbacks)
        start = time.perf_counter()
        trainer.fit(TheirModule(), DataLoader(train, BATCH, shuffle=True), DataLoader(val, BATCH))
    return {"epoch": (time.perf_counter() - start) / epochs}


def by_hand(epochs: int) -> dict[str, float]:
    """A loop over tensors without metrics, validated after each epoch."""
    set_allocator("fast")
    with mnist_root() as root:
        data = MNIST(root)
    x, y = (data.data[:, None] / 255 - 0.1307) / 0.3081, data.targets
    network = MLP(Batch(), (1, 28, 28), 10)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=0)
    start = time.perf_counter()
    for _ in range(epochs):
        for index in torch.randperm(55_000).split(BATCH):
            loss = nn.functional.cross_entropy(network(x[index]), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            for images, labels in zip(x[55_000:].split(BATCH), y[55_000:].split(BATCH), strict=True):
                (network(images).argmax(1) == labels).sum().item()
        network.train()
    return {"epoch": (time.perf_counter() - start) / epochs}


def ours(epochs: int, *overrides: str) -> dict[str, float]:
    """`python train.py`, validation, checkpoints and metrics included; without imports and the final test."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, clock.inside_a_run():
        normlab.run(normlab.compose([*MNIST_RUN, f"trainer.max_epochs={epochs}", *overrides]), folder)
    return {"epoch": clock.seconds / epochs}


class Clock:
    """Seconds from the start of a run's training to its end."""

    seconds = 0.0

    @contextmanager
    def inside_a_run(self) -> Iterator[None]:
        fit = Trainer.fit

        def timed(trainer: Trainer, *args: Any, **options: Any) -> None:
            start = time.perf_counter()
            fit(trainer, *args, **options)
            self.seconds = time.perf_counter() - start

        Trainer.fit = timed
        try:
            yield
        finally:
            Trainer.fit = fit


@contextmanager
def mnist_root() -> Iterator[Path]:
    """Where torchvision's MNIST finds its unpacked files."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "MNIST", "raw")
        raw.mkdir(parents=True)
        for file in (ROOT / "MNIST" / "raw").iterdir():
            (raw / file.name).symlink_to(file.resolve())
        MNIST(folder, download=True)  # unpacks what lies there
        yield Path(folder)


def reference_loader(folder: Path) -> float:
    """Images a second of torchvision's references/classification loader: its presets for training at this size."""
    form = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float),
            transforms.Normalize((0.4913, 0.4821, 0.4465), (0.2452, 0.2428, 0.2606)),
        ]
    )
    data = ImageFolder(str(folder / "train"), transform=form)
    return passed(DataLoader(data, 128, shuffle=True, num_workers=os.cpu_count() or 1))


def our_loader(folder: Path, in_memory: bool) -> float:
    """The same changes, on whole batches."""
    settings = ["data=image_folder", f"data.path={folder}", "data.batch_size=128", "data.crop=4", "data.flip=true"]
    data = make(normlab.compose([*settings, f"data.in_memory={str(in_memory).lower()}"]), "data")
    data.prepare_data()
    data.setup("fit")
    return passed(data.train_dataloader())


def passed(loader: Any) -> float:
    """Images a second of the second pass: the first starts workers."""
    for _ in range(2):
        start, images = time.perf_counter(), 0
        for x, _ in loader:
            images += len(x)
    return images / (time.perf_counter() - start)


LOADERS = {
    "torchvision's reference loader": reference_loader,
    "ours, streamed": lambda folder: our_loader(folder, in_memory=False),
    "ours, in memory": lambda folder: our_loader(folder, in_memory=True),
}
THEIRS, HAND = "lightning-hydra-template's way", "by hand, over tensors"
EPOCHS: dict[str, Callable[[int], dict[str, float]]] = {
    THEIRS: theirs,
    HAND: by_hand,
    "ours": ours,
    "ours, steps_per_execution=32": lambda epochs: ours(epochs, "steps_per_execution=32"),
}


def measured(kind: str, name: str, argument: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", kind, name, argument]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def one(kind: str, name: str, argument: str) -> None:
    found = EPOCHS[name](int(argument)) if kind == "epoch" else {"speed": LOADERS[name](Path(argument))}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("\n" + json.dumps(found | {"peak": peak}))


def epochs_table(quick: bool) -> None:
    epochs, count = (1, 1) if quick else (3, 3)
    results = rounds({name: lambda name=name: measured("epoch", name, str(epochs))["epoch"] for name in EPOCHS}, count)
    rows = [
        [
            name,
            f"{statistics.median(results[name]):.2f}",
            f"{1 / ratio(results, name, THEIRS):.1f}",
            f"{ratio(results, name, HAND):.2f}",
        ]
        for name in EPOCHS
    ]
    print(f"MNIST, MLP 784-64-128-256-10, batch {BATCH}, {epochs} epochs, {count} rounds\n")
    print(table(["", "s an epoch", "× as fast as theirs", "of by hand"], rows))


def loaders_table(quick: bool, folder: Path) -> None:
    count = 1 if quick else 3
    peaks: dict[str, float] = {}

    def speed(name: str) -> float:
        found = measured("loader", name, str(folder))
        peaks[name] = found["peak"]
        return found["speed"]

    results = rounds({name: lambda name=name: speed(name) for name in LOADERS}, count)
    first = next(iter(LOADERS))
    rows = [
        [
            name,
            f"{statistics.median(results[name]):,.0f}",
            f"{ratio(results, name, first):.2f}",
            f"{peaks[name]:,.0f}",
        ]
        for name in LOADERS
    ]
    print(f"\nCIFAR-10 (JPEG q75) as image_folder, crop and flip, {count} rounds\n")
    print(table(["", "images/s", "of torchvision's", "peak MiB, without workers"], rows))


BANK = {
    "experiment=bank": [],
    "experiment=bank model=custom_model": ["model=custom_model"],
    "experiment=bank, without the duration": ["data.drop=[c11]"],
}


def bank_run(overrides: list[str], seed: int) -> dict[str, float]:
    """Accuracy, AUROC and seconds of the whole command, imports included."""
    train = Path(__file__).parent.parent / "train.py"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(train), "experiment=bank", *overrides, f"seed={seed}", "name=bank"]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, cwd=folder)
        seconds = time.perf_counter() - start
        metrics = json.loads(Path(folder, "outputs", "bank", "result.json").read_text())["metrics"]
    return {"acc": metrics["test/acc"], "auroc": metrics["test/auroc"], "seconds": seconds}


def logistic_regression(overrides: list[str]) -> dict[str, float]:
    """scikit-learn's, on the same columns and the same test part."""
    start = time.perf_counter()
    data = make(normlab.compose(["experiment=bank", *overrides]), "data")
    data.prepare_data()
    data.setup("fit")
    (x, y), (x_test, y_test) = data.splits["train"], data.splits["test"]
    fitted = LogisticRegression(max_iter=1000).fit(x, y)
    found = {"acc": fitted.score(x_test, y_test), "auroc": roc_auc_score(y_test, fitted.predict_proba(x_test)[:, 1])}
    return found | {"seconds": time.perf_counter() - start}


def bank_table(quick: bool) -> None:
    results = {name: [bank_run(typed, seed) for seed in range(1 if quick else 5)] for name, typed in BANK.items()}
    results["logistic regression"] = [logistic_regression([])]
    results["logistic regression, without the duration"] = [
        logistic_regression(BANK["experiment=bank, without the duration"])
    ]
    rows = [
        [name, *(f"{statistics.mean(run[key] for run in runs):.3f}" for key in ("acc", "auroc")), f"{seconds:.1f}"]
        for name, runs in results.items()
        for seconds in [statistics.median(run["seconds"] for run in runs)]
    ]
    print("\nBank Marketing, data=csv; of ours the whole command\n")
    print(table(["", "accuracy", "AUROC", "seconds"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it runs")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(*arguments.one)
        return
    if not ROOT.is_dir():
        print(f"no data: NORMLAB_DATA_DIR is {ROOT}, which is no folder")
        return
    print(machine())
    bank_table(arguments.quick)
    epochs_table(arguments.quick)
    with (
        tempfile.TemporaryDirectory() as folder,
        tarfile.open(ROOT / "cifar10-jpeg" / "cifar10-jpeg.tar.gz") as archive,
    ):
        archive.extractall(folder, filter="data")
        loaders_table(arguments.quick, Path(folder))


if __name__ == "__main__":
    main()
