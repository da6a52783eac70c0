"""Iris plants.  python train.py model=net data=iris"""

from typing import Any

from sklearn.datasets import load_iris

from normlab.data.tables.bundled import BundledTable


class Iris(BundledTable):
    """150 flowers, four measurements, three species (Fisher, 1936)."""

    task = "classify"
    input_shape = (4,)
    out_features = 3

    def bunch(self) -> Any:
        return load_iris()
