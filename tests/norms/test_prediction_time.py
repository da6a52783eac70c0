"""Prediction-time batch norm: torch's in training, and torch's without running statistics in evaluation."""

import torch
from torch import nn

from normlab.norms.prediction_time import PredictionTime


def test_training_is_batch_norm_with_its_state():
    ours, theirs = PredictionTime()(6, 2).double(), nn.BatchNorm2d(6).double()
    nn.init.normal_(ours.weight)
    theirs.load_state_dict(ours.state_dict())
    for _ in range(3):
        x = torch.randn(8, 6, 4, 4, dtype=torch.float64) * 3 + 1
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-10)
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=0, atol=1e-10)


def test_evaluation_is_batch_norm_without_running_statistics_and_moves_nothing():
    ours = PredictionTime()(6, 2).double()
    theirs = nn.BatchNorm2d(6, track_running_stats=False).double().eval()
    x = torch.randn(8, 6, 4, 4, dtype=torch.float64) * 3 + 1
    ours(x)
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    torch.testing.assert_close(ours.eval()(x + 5), theirs(x + 5), rtol=0, atol=1e-10)
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())
