"""16-mixed on a GPU: a batch that is left out leaves scale, weights and moments alone."""

import json
import math

import pytest
import torch

from normlab import compose, run
from normlab.data.wine import Wine

pytestmark = pytest.mark.gpu


class Spoiled(Wine):
    """One training sample holds NaN."""

    def setup(self, stage=None):
        super().setup(stage)
        self.splits["train"][0][3, 2] = math.nan


@pytest.mark.parametrize("optimizer", ["sgd", "adamw optimizer.fused=true"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_batch_with_nan_is_left_out(tmp_path, optimizer, accumulate):
    settings = ["model=net", "logger=none", "trainer=gpu", "trainer.precision=16-mixed", "trainer.max_epochs=3"]
    settings += ["nonfinite=skip", *f"optimizer={optimizer}".split(), f"trainer.accumulate_grad_batches={accumulate}"]
    run(compose(settings), tmp_path, Spoiled(batch_size=16))
    assert json.loads((tmp_path / "result.json").read_text())["skipped"] == 3
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in saved["state_dict"].values())
