"""Breast cancer Wisconsin (diagnostic).  python train.py model=net data=breast_cancer"""

from typing import Any

from sklearn.datasets import load_breast_cancer

from normlab.data.tables.bundled import BundledTable


class BreastCancer(BundledTable):
    """569 tumours, 30 measurements of cell nuclei, malignant or benign (Wolberg et al., UCI)."""

    task = "classify"
    input_shape = (30,)
    out_features = 2

    def bunch(self) -> Any:
        return load_breast_cancer()
