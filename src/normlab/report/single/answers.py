"""What a network answers to the samples of one part of the data, and what its layers hold. No torch in it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from normlab.data.common.targets import TargetColumn


@dataclass(frozen=True)
class Sample:
    """One of the samples with the highest loss.

    place: its place in the part, from 0. picture: a PNG, of images. values: the name and value of each column, of rows
    of a table; prepared: they are as the network takes them, and not in the units of the table. other: what the sample
    is where it is neither.
    """

    place: int
    name: str
    loss: float
    picture: bytes | None = None
    values: Sequence[tuple[str, str]] = ()
    prepared: bool = False
    other: str = ""


@dataclass(frozen=True)
class Answers:
    """What the network says of each sample of a part.

    part: test, or val where the data has no test part. task: classify, multilabel or regress. columns: of the target.
    truth: class numbers (N,), or labels or numbers (N, columns). said: probabilities (N, classes), those of the second
    class (N, columns), or numbers (N, columns). worst: the samples with the highest loss first.
    """

    part: str
    task: str
    columns: Sequence[TargetColumn]
    truth: np.ndarray
    said: np.ndarray
    worst: Sequence[Sample]

    @property
    def predicted(self) -> np.ndarray:
        """The likeliest classes, in the shape of `truth`; numbers stay as they are."""
        if self.task == "classify":
            return self.said.argmax(1)
        return (self.said > 0.5).astype(np.int64) if self.task == "multilabel" else self.said

    def class_probabilities(self, column: int = 0) -> np.ndarray:
        """The probability (N, classes) of each class of a column."""
        if self.task == "classify":
            return self.said
        return np.stack([1 - self.said[:, column], self.said[:, column]], axis=1)


@dataclass(frozen=True)
class Spread:
    """How values are spread over the channels of a layer."""

    lowest: float
    lower: float  # a quarter of the channels lies below
    median: float
    upper: float  # a quarter of the channels lies above
    highest: float
    mean: float
    sd: float

    @staticmethod
    def of(values: np.ndarray) -> "Spread":
        lowest, lower, median, upper, highest = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()
        return Spread(lowest, lower, median, upper, highest, float(values.mean()), float(values.std()))


@dataclass(frozen=True)
class NormLayer:
    """A normalization layer: the spread of each quantity that it has, and the channels that carry nothing.

    quantities: among MEAN, VARIANCE, SCALE and SHIFT. faint: how many channels have |γ| < FAINT, of
    `normlab.folder.recorded`. constant: how many have a running variance of at most `eps`.
    """

    name: str
    kind: str
    channels: int
    eps: float | None
    quantities: dict[str, Spread] = field(default_factory=dict)
    faint: int | None = None
    constant: int | None = None


MEAN, VARIANCE, SCALE, SHIFT = "running mean", "running variance", "γ", "β"
QUANTITIES = {"running_mean": MEAN, "running_var": VARIANCE, "weight": SCALE, "bias": SHIFT}


@dataclass(frozen=True)
class Weights:
    """A parameter of the network: its name, shape and number of values."""

    name: str
    shape: tuple[int, ...]
    count: int


@dataclass
class Look:
    """What was seen of a run beside its files. missing: what could not be had, and why, a sentence each."""

    answers: Answers | None = None
    layers: list[NormLayer] = field(default_factory=list)
    weights: list[Weights] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
