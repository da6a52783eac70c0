"""Wine recognition.  python train.py model=net data=wine"""

from typing import Any

from sklearn.datasets import load_wine

from normlab.data.tables.bundled import BundledTable


class Wine(BundledTable):
    """178 wines, 13 chemical measurements, three cultivars (Forina et al., UCI)."""

    task = "classify"
    input_shape = (13,)
    out_features = 3

    def bunch(self) -> Any:
        return load_wine()
