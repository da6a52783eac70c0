"""How good answers are: what an export in 8 bits costs."""

from collections.abc import Mapping

import numpy as np
from sklearn.metrics import r2_score


def quality(task: str, answers: Mapping[str, np.ndarray], targets: np.ndarray) -> dict[str, float]:
    """Accuracy, of labels their mean accuracy, or r2 of answers to the same samples, each under its prefix.

    answers: probabilities (N, classes) or of labels (N, columns), or numbers (N, columns).
    """
    if task == "regress":
        return {f"{prefix}r2": float(r2_score(targets.reshape(len(targets), -1), y)) for prefix, y in answers.items()}
    chosen = {prefix: y.argmax(1) if task == "classify" else y > 0.5 for prefix, y in answers.items()}
    return {f"{prefix}acc": float((y == targets).mean()) for prefix, y in chosen.items()}
