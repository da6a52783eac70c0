"""Diabetes progression.  python train.py model=net data=diabetes"""

from typing import Any

from sklearn.datasets import load_diabetes

from normlab.data.tables.bundled import BundledTable


class Diabetes(BundledTable):
    """442 patients, ten measurements, disease progression after a year (Efron et al., 2004)."""

    task = "regress"
    input_shape = (10,)
    out_features = 1

    def bunch(self) -> Any:
        return load_diabetes()
