"""How often each class is taken for which, and the scores of each class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from normlab.report.single import intervals
from normlab.report.single.intervals import Interval


@dataclass(frozen=True)
class ClassScore:
    """A class's scores. there: how many samples are of it; predicted: how many are taken for it."""

    name: str
    there: int
    predicted: int
    precision: Interval
    recall: Interval
    f1: Interval


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """How many samples of class i are taken for class j, (classes, classes). truth, predicted: class numbers (N,)."""
    return np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


def class_scores(matrix: np.ndarray, names: Sequence[str]) -> list[ClassScore]:
    """The scores of each class by its confusion matrix."""
    there, predicted = matrix.sum(1).tolist(), matrix.sum(0).tolist()
    return [
        ClassScore(
            str(name),
            there[number],
            predicted[number],
            intervals.share(hits, predicted[number]),
            intervals.share(hits, there[number]),
            intervals.f1(hits, predicted[number], there[number]),
        )
        for number, (name, hits) in enumerate(zip(names, matrix.diagonal().tolist(), strict=True))
    ]


def mistakes(matrix: np.ndarray, names: Sequence[str], most: int) -> list[tuple[str, str, int, int]]:
    """The most frequent mistakes: (true class, predicted class, how often, of how many)."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    places = [divmod(int(place), len(matrix)) for place in order]
    return [(str(names[i]), str(names[j]), int(wrong[i, j]), int(matrix[i].sum())) for i, j in places if wrong[i, j]]
