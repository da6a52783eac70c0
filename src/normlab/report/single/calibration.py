"""Whether probabilities mean what they say: of all answers given with 80 %, 80 % should be right."""

from dataclasses import dataclass

import numpy as np

from normlab.report.single import intervals
from normlab.report.single.intervals import Interval

BINS = 10
IN_BIN = 10  # with fewer samples than so many in a bin, there are fewer bins
DRAWS = 1000
DRAWN = 2**22  # the most values that are drawn at once


@dataclass(frozen=True)
class Bin:
    """Samples of about the same confidence: its mean, and the share of them that is right."""

    count: int
    confidence: float
    right: Interval


@dataclass(frozen=True)
class Calibration:
    """The bins, and the expected calibration error: the mean distance of confidence and share over all samples.

    It is never 0 for a few samples, so beside it stands what a perfectly calibrated network with the same confidences
    shows: `chance`, the mean, and `limit`, which it stays below in 95 % of test parts.
    """

    bins: list[Bin]
    error: float
    chance: float
    limit: float
    excess: float  # mean confidence less the share that is right

    @property
    def within_noise(self) -> bool:
        return self.error <= self.limit


def calibrate(confidence: np.ndarray, right: np.ndarray) -> Calibration:
    """confidence: the probabilities (N,) of what was answered. right: whether that was so, (N,).

    The bins are scikit-learn's `calibration_curve(strategy="quantile")`: they hold about equally many samples. The
    reference is drawn DRAWS times from the confidences themselves (Bröcker & Smith, Increasing the reliability of
    reliability diagrams, 2007), always with the same random numbers.
    """
    count = max(1, min(BINS, len(confidence) // IN_BIN))
    edges = np.quantile(confidence, np.linspace(0, 1, count + 1))
    _, bin_of = np.unique(np.searchsorted(edges[1:-1], confidence), return_inverse=True)
    sizes = np.bincount(bin_of)
    promised, kept = np.bincount(bin_of, confidence), np.bincount(bin_of, right)
    bins = [
        Bin(int(size), float(total / size), intervals.share(float(hits), float(size)))
        for size, total, hits in zip(sizes, promised, kept, strict=True)
    ]
    drawn = _drawn(confidence, bin_of, promised)
    error = float(np.abs(promised - kept).sum() / len(confidence))
    excess = float(promised.sum() - kept.sum()) / len(confidence)
    return Calibration(bins, error, float(drawn.mean()), float(np.quantile(drawn, 0.95)), excess)


def log_loss(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The mean of −log of the true class's probability. probabilities: (N, classes); truth: class numbers (N,)."""
    said = probabilities[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(said, np.finfo(np.float32).tiny)).mean())


def _drawn(confidence: np.ndarray, bin_of: np.ndarray, promised: np.ndarray) -> np.ndarray:
    """The errors (DRAWS,) that perfectly calibrated networks with these confidences show."""
    random, order = np.random.default_rng(0), np.argsort(bin_of, kind="stable")
    first = np.searchsorted(bin_of[order], range(len(promised)))  # where each bin begins
    errors = []
    for start in range(0, DRAWS, at_once := max(1, DRAWN // len(confidence))):
        right = random.random((min(at_once, DRAWS - start), len(confidence))) < confidence[order]
        hits = np.add.reduceat(right, first, axis=1, dtype=np.int64)
        errors.append(np.abs(promised - hits).sum(1) / len(confidence))
    return np.concatenate(errors)
