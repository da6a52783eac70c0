"""What always guessing one class would score stands beside the score, and actions say what they have measured."""

import pandas as pd
import pytest
import torch
from helpers.folders import result_of
from torch.utils.data import TensorDataset

from normlab import compose, run

SMALL = ["model=net", "logger=none", "trainer.max_epochs=1"]
X = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))


def said(folder):
    return (folder / "train.log").read_text()


@pytest.mark.parametrize("counts", [(57, 3), (20, 20, 20), (10, 31, 19)], ids=str)
def test_the_share_of_the_most_frequent_class_is_that_of_the_part_that_was_measured(tmp_path, counts):
    y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    test = torch.cat([y[:30], y[:10]])
    parts = [TensorDataset(X[: len(part)], part) for part in (y, y, test)]
    run(compose([*SMALL, "data.batch_size=7"]), folder=tmp_path, data=parts)
    share = {name: pd.Series(part).value_counts(normalize=True).max() for name, part in (("val", y), ("test", test))}
    assert result_of(tmp_path)["majority"] == pytest.approx(share)
    assert f"(always one class: acc {share['test']:.4g})" in said(tmp_path)


def test_a_target_to_regress_has_no_majority(tmp_path):
    run(compose([*SMALL, "data=diabetes"]), folder=tmp_path)
    assert result_of(tmp_path)["majority"] == {}
    assert "always one class" not in said(tmp_path)


@pytest.mark.parametrize(
    ("typed", "told"), [([], True), (["score=val/f1"], False), (["task.class_weights=null"], False)]
)
def test_accuracy_as_the_score_of_weighted_classes_is_pointed_out(tmp_path, typed, told):
    run(compose([*SMALL, "data=wine", "task.class_weights=balanced", *typed]), folder=tmp_path)
    assert ("task.class_weights=balanced with val/acc as the score" in said(tmp_path)) == told


def test_validate_says_what_it_measured_and_calls_it_nothing_else(tmp_path, monkeypatch):
    """Of a run whose last epoch is not its best."""
    monkeypatch.chdir(tmp_path)
    config = ["model=net", "data=wine", "logger=none", "trainer.max_epochs=6", "optimizer.lr=0.3", "scheduler=none"]
    run(compose([*config, "name=a"]))
    for ckpt in ("best", "last"):
        metrics = run(compose(["action=validate", "name=a", f"ckpt={ckpt}"])).metrics
        told = said(tmp_path / "outputs/a/validate").splitlines()[-1]
        assert f"{ckpt}.ckpt: val/loss {metrics['val/loss']:.4g}, val/acc {metrics['val/acc']:.4g}" in told
        assert "best val" not in told
