"""A finished run as a fitted estimator of scikit-learn's kind.  model = normlab.load("outputs/x")"""

# ruff: noqa: N803  # X is what scikit-learn calls it

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from normlab.config.compose import of_run
from normlab.config.inputs import named_checkpoint
from normlab.data.tables.frames import FrameTable
from normlab.errors import ConfigError
from normlab.folder.files import holds_run
from normlab.folder.place import ROOT, shown
from normlab.runner.answering import Answering


def load(run: str | Path, ckpt: str = "best", trust: Sequence[str] = ()) -> Any:
    """A run's network with its preprocessing, a `Loaded`: `predict`, `score`, `transform`; of classes `predict_proba`.

    run: the run's folder, which is only read. ckpt: best, last, another of its checkpoints, or a path. trust: packages
    whose classes the run's configuration may name, as in `trust=` on the command line.

    X is the path of a file or folder, as action=predict reads it, or a list of paths; a DataFrame; an array with the
    columns `feature_names_in_`, or of images; or Pillow's pictures. The answers are those of action=predict. Several
    threads may ask at once. Raises ConfigError, a ValueError, for a folder without such a run and for wrong X.
    """
    folder = Path(run)
    if not holds_run(folder):
        hint = f"; did you mean {ROOT / folder}?" if holds_run(ROOT / folder) else ""
        raise ConfigError(f"normlab.load: there is no run in {shown(folder)}{hint}")
    checkpoint = named_checkpoint(str(ckpt), folder)
    if not checkpoint.is_file():
        raise ConfigError(f"normlab.load: ckpt={ckpt}: there is no file {checkpoint}")
    answering = Answering(of_run(folder, trust), folder, checkpoint)
    kind = {"classify": Classifier, "multilabel": Labels, "regress": Regressor}[answering.data.task]
    return kind(str(folder.absolute()), str(ckpt), tuple(trust)).take(answering)


class Loaded(BaseEstimator):
    """What is common to loaded runs. `normlab.load` makes them.

    feature_names_in_: the columns that the network learned from; tables alone have it. n_features_in_: how many columns
    of an array X has, for images their values.
    """

    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(self, run: str, ckpt: str = "best", trust: Sequence[str] = ()):
        self.run, self.ckpt, self.trust = run, ckpt, trust

    def take(self, answering: Answering) -> Self:
        """Takes the network over."""
        data = answering.data
        self._answering = answering
        names = getattr(data, "feature_names", None)
        if names is not None:
            self.feature_names_in_ = np.array(names, dtype=object)
        self.n_features_in_ = len(names) if names is not None else data.values_in
        return self

    def fit(self, X: Any, y: Any = None) -> Self:
        raise NotImplementedError(
            "a loaded run is fitted already: python train.py trains; where fit is called all the same, put "
            "sklearn.frozen.FrozenEstimator(model) in its place"
        )

    def transform(self, X: Any) -> np.ndarray:
        """The features (N, width) that the network's last layer turns into its answers."""
        return self._answering.inputs_of_head(X).numpy()

    def set_params(self, **params: Any) -> Self:
        if params:
            raise ValueError(f"{', '.join(params)}: what is loaded stays as it is; call normlab.load again")
        return self

    def _answers(self, X: Any) -> np.ndarray:
        return self._answering.answers(X).numpy()

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_answering")

    def __sklearn_clone__(self) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return load, (self.run, self.ckpt, self.trust)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        is_table = isinstance(self._answering.data, FrameTable)
        tags.input_tags.allow_nan = tags.input_tags.categorical = tags.input_tags.string = is_table
        return tags


class Classifier(ClassifierMixin, Loaded):
    """A run that tells classes apart.

    classes_: in the order of `predict_proba`'s columns; whole numbers where all their names are such, as scikit-learn's
    users have them, and texts otherwise.
    """

    def take(self, answering: Answering) -> Self:
        self.classes_ = _labels(answering.data.class_names or range(answering.data.out_features))
        return super().take(answering)

    def predict_proba(self, X: Any) -> np.ndarray:
        """(N, classes)."""
        return self._answers(X)

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest classes (N,)."""
        return self.classes_[self._answers(X).argmax(1)]


class Labels(ClassifierMixin, Loaded):
    """A run that answers several columns of two classes each. classes_: a pair for each column."""

    def take(self, answering: Answering) -> Self:
        self.classes_ = [_labels(pair) for pair in answering.data.class_names or [("0", "1")]]
        return super().take(answering)

    def predict_proba(self, X: Any) -> list[np.ndarray]:
        """(N, 2) for each column, as scikit-learn's classifiers of several outputs give them."""
        return [np.stack([1 - second, second], axis=1) for second in self._answers(X).T]

    def predict(self, X: Any) -> np.ndarray:
        """The classes (N, columns)."""
        columns = zip(self.classes_, (self._answers(X) > 0.5).T, strict=True)
        return np.stack([pair[second.astype(int)] for pair, second in columns], axis=1)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of right labels, the mean over columns, as `acc` measures it."""
        right = (self.predict(X) == np.asarray(y)).mean(axis=1)
        return float(np.average(right, weights=sample_weight))


class Regressor(RegressorMixin, Loaded):
    """A run that answers with numbers, in the target's own units."""

    def predict(self, X: Any) -> np.ndarray:
        """(N,), or (N, columns) of several."""
        answers = self._answers(X)
        return answers[:, 0] if answers.shape[1] == 1 else answers


def _labels(names: Sequence[Any]) -> np.ndarray:
    texts = [str(name) for name in names]
    whole = all(text.removeprefix("-").isdecimal() and str(int(text)) == text for text in texts)
    return np.array([int(text) for text in texts]) if whole else np.array(texts, dtype=object)
