"""Numeric tables."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from normlab.data.common.base import FACTS, DataModule
from normlab.data.common.batches import Source
from normlab.data.common.fingerprint import Fingerprint, of_columns
from normlab.data.common.portions import Portion, as_rows
from normlab.errors import ConfigError


class BundledTable(DataModule):
    """A table that ships inside scikit-learn; features are standardised with the training part's mean and deviation."""

    facts: ClassVar[Sequence[str]] = (*FACTS, "feature_names", "mean", "std")
    feature_names: Sequence[str]
    mean: Sequence[float]  # of each feature
    std: Sequence[float]

    def bunch(self) -> Any:
        """scikit-learn's loaded data set."""
        raise NotImplementedError

    def load(self) -> dict[str, tuple[Tensor | Source, Tensor]]:
        bunch = self.bunch()
        self.feature_names = [str(name) for name in bunch.feature_names]
        if self.task == "classify":
            self.class_names = [str(name) for name in bunch.target_names]
        x, y = torch.tensor(bunch.data, dtype=torch.float32), torch.tensor(bunch.target)
        return {"train": (x, y.long() if self.task == "classify" else y.float().unsqueeze(1))}

    def digests(self, samples: Tensor, places: Tensor) -> Fingerprint:
        return of_columns(zip(self.feature_names, samples.T, strict=True))

    def raw_facts(self) -> dict[str, Any]:
        return {"samples": "a number for each column", "columns": [{"name": name} for name in self.feature_names]}

    def preprocess(self, train: Tensor) -> Callable[[Tensor], Tensor]:
        std, mean = torch.std_mean(train, dim=0, correction=0)
        std = torch.where(std > 0, std, 1.0)  # a constant column becomes 0, not NaN
        self.mean, self.std = mean.tolist(), std.tolist()
        return self._standardise

    def take_new(self, given: Any) -> Portion:
        """A frame with the columns `feature_names`, or an array (N, features) of them, as scikit-learn's set has it."""
        if hasattr(given, "columns"):
            if lacking := [name for name in self.feature_names if name not in given.columns]:
                raise ConfigError(f"X: these columns are missing: {', '.join(lacking)}")
            given = given[[*self.feature_names]]
        rows = as_rows(given, self.feature_names)
        try:
            x = torch.tensor(rows.astype("float32"))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"X has to hold numbers: {error}") from error
        bad = torch.nonzero(~torch.isfinite(x).all(1)).flatten().tolist()
        if bad:
            raise ConfigError(f"X: row {bad[0] + 1} has a value that is NaN or inf, for which this data has no rule")
        return Portion(self._standardise(x), [str(number + 1) for number in range(len(x))])

    def _standardise(self, x: Tensor) -> Tensor:
        return (x - torch.tensor(self.mean)) / torch.tensor(self.std)
