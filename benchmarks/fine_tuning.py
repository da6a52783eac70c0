"""What starting from weights gains where labelled images are few, against training from scratch for as many epochs.

    python benchmarks/fine_tuning.py [--seeds 5] [--epochs 5] [--quick]

A resnet learns one set of digits, anew for each seed, and then `LABELLED` images of another: scikit-learn's digits
0 to 4, then 5 to 9; and scikit-learn's digits, then MNIST, where NORMLAB_DATA_DIR says that it lies on the disk. Each
way of starting has the same images, epochs and rate; a thaw comes after a third of the epochs. Prints the mean and
standard deviation of the accuracy on the test part, and of what each seed gains over scratch.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import machine, table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import normlab

LABELLED = 50  # training images of the second set
WAYS = {
    "from scratch": [],
    "`init=`": ["init={init}"],
    "`init= freeze=backbone`": ["init={init}", "freeze=backbone"],
    "`init= freeze=backbone thaw_at=`": ["init={init}", "freeze=backbone", "thaw_at={third}"],
    "`init= optimizer.layer_decay=0.7`": ["init={init}", "optimizer.layer_decay=0.7"],
}
BEFORE = "trainer.max_epochs=15"  # on the first set
COMMON = ["model=resnet", "logger=none", "data.batch_size=16", "optimizer.lr=0.05"]


def digits(low: int, high: int, labelled: int | None = None) -> Any:
    """Training, validation and test images (N, 1, 8, 8) of the digits from `low` to `high`, counted from 0 there."""
    x, y = load_digits(return_X_y=True)
    chosen = (y >= low) & (y <= high)
    x, y = (x[chosen] / 16).reshape(-1, 1, 8, 8).astype("float32"), y[chosen] - low
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.5, random_state=0, stratify=y)
    x, x_val, y, y_val = train_test_split(x, y, test_size=0.2, random_state=0, stratify=y)
    if labelled is not None:
        x, _, y, _ = train_test_split(x, y, train_size=labelled, random_state=0, stratify=y)
    return (x, y), (x_val, y_val), (x_test, y_test)


def half_to_half(seed: int, folder: Path, epochs: int) -> Callable[[list[str]], float]:
    """Learns the digits 0 to 4; returns what learns 5 to 9 in a way, and gives its test accuracy."""
    short = [*COMMON, f"seed={seed}", f"trainer.max_epochs={epochs}"]
    normlab.run(normlab.compose([*short, BEFORE]), folder / "first", data=digits(0, 4))
    return lambda way: _accuracy([*short, *way], folder, digits(5, 9, LABELLED))


def to_mnist(seed: int, folder: Path, epochs: int) -> Callable[[list[str]], float]:
    """Learns scikit-learn's digits; returns what learns a part of MNIST in a way, and gives its test accuracy."""
    size = ["data.size=8", "data.channels=1"]
    short = [*COMMON, f"seed={seed}", f"trainer.max_epochs={epochs}"]
    normlab.run(normlab.compose([*short, *size, BEFORE]), folder / "first")
    mnist = [
        "data=mnist",
        *size,
        f"data.subset={LABELLED}",
        "data.val_fraction=0.01",
        "trainer.check_val_every_n_epoch=5",
    ]
    mnist.append("trainer.limit_test_batches=125")  # 2,000 images
    return lambda way: _accuracy([*short, *mnist, *way], folder)


def _accuracy(overrides: list[str], folder: Path, data: Any = None) -> float:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        return normlab.run(normlab.compose(overrides), Path(place) / "run", data=data).metrics["test/acc"]


def measure(begin: Callable[[int, Path, int], Callable[[list[str]], float]], seeds: int, epochs: int) -> str:
    scores: dict[str, list[float]] = {name: [] for name in WAYS}
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as name:
            tune = begin(seed, Path(name), epochs)
            init = f"{name}/first/checkpoints/best.ckpt"
            for way, overrides in WAYS.items():
                scores[way].append(tune([line.format(init=init, third=round(epochs / 3)) for line in overrides]))
    rows = []
    for way, found in scores.items():
        gains = [score - scratch for score, scratch in zip(found, scores["from scratch"], strict=True)]
        rows.append([way, _spread(found), "" if way == "from scratch" else _spread(gains)])
    return table(["start", "test/acc", "gain"], rows)


def _spread(values: list[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5, help="on the second set")
    parser.add_argument("--digits", action="store_true", help="without MNIST")
    parser.add_argument("--quick", action="store_true", help="one seed, to see that it runs")
    options = parser.parse_args()
    seeds, epochs = 1 if options.quick else options.seeds, options.epochs
    print(f"{machine()}; {LABELLED} labelled images, {epochs} epochs, {seeds} seeds")
    print(f"\nscikit-learn's digits 0 to 4, then 5 to 9\n\n{measure(half_to_half, seeds, epochs)}", flush=True)
    if "NORMLAB_DATA_DIR" in os.environ and not options.digits:
        print(f"\nscikit-learn's digits, then MNIST\n\n{measure(to_mnist, seeds, epochs)}")


if __name__ == "__main__":
    main()
