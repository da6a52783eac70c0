"""Numeric tables."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from normlab.data.common.base import DataModule
from normlab.data.common.batches import Source
from normlab.data.common.fingerprint import Fingerprint, of_columns


class BundledTable(DataModule):
    """A table that ships inside scikit-learn; features are standardised with the training part's mean and deviation."""

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

    def preprocess(self, train: Tensor) -> Callable[[Tensor], Tensor]:
        std, mean = torch.std_mean(train, dim=0, correction=0)
        std = torch.where(std > 0, std, 1.0)  # a constant column becomes 0, not NaN
        return lambda x: (x - mean) / std
