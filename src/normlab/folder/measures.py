"""What can be measured of a finished run, by name, and measured.json, which holds it. No torch in it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from normlab.folder.files import read_result
from normlab.folder.writing import write_text

FILE = "measured.json"


@dataclass(frozen=True)
class Measure:
    """A measure as a page shows it.

    shares_of: the parts of the data whose shares of samples it is made of; a share of n samples is known to 1 / n only.
    is_accuracy: whether it is the accuracy itself, on the one part that it is made of.
    """

    title: str
    meaning: str
    shares_of: tuple[str, ...] = ()
    is_accuracy: bool = False


# normlab.runner.measures has a file for each of them.
MEASURES = {
    "accuracy": Measure(
        "test accuracy",
        "The share of the test samples that the best checkpoint tells rightly.",
        ("test",),
        is_accuracy=True,
    ),
    "early": Measure(
        "early accuracy",
        "The mean accuracy on the validation part over the first quarter of the epochs, at least one.",
        ("val",),
        is_accuracy=True,
    ),
    "overfitting": Measure(
        "overfitting",
        "The accuracy of the best checkpoint on the training part, without augmentation, less that on the test part.",
        ("train", "test"),
    ),
    "shift": Measure(
        "loss under shift",
        "The test accuracy less its mean where the network's input x is changed to 0.3 · x, to x + 1 and to x with "
        "normal noise of standard deviation 1.",
        ("test",),
    ),
    "gradient_imbalance": Measure(
        "gradient imbalance",
        "How many powers of ten lie between the gradient norms of the first and the last weight, before the first step "
        "of training.",
    ),
    "covariate_shift": Measure(
        "internal covariate shift",
        "By what part of itself a layer's gradient changes when the layers before it take their step, in the first "
        "steps of training.",
    ),
    "mode_gap": Measure(
        "mode gap",
        "The accuracy on the training part with norm layers as in training less that with norm layers as in "
        "evaluation; 0 is best.",
        ("train",),
    ),
    "precise_gain": Measure(
        "gain by precise statistics",
        "The test accuracy of the last checkpoint with statistics of the whole training part less that with its "
        "running averages; the weights are the same.",
        ("test",),
    ),
}


def read_measured(folder: Path) -> dict[str, float]:
    """What was measured of the run that the folder holds, by name; a damaged file, or another run's, holds nothing."""
    try:
        written = json.loads((folder / FILE).read_text())
        values = written["values"]
        if written["config_hash"] != read_result(folder)["config_hash"]:
            return {}
        return {name: float(value) for name, value in values.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def write_measured(folder: Path, config_hash: str, values: Mapping[str, float]) -> None:
    """Writes measured.json whole. Raises WriteError."""
    written = {"config_hash": config_hash, "values": dict(values)}
    write_text(folder / FILE, json.dumps(written, indent=2, allow_nan=False) + "\n")
