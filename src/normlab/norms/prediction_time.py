"""Batch normalization that keeps to the batch's statistics at evaluation."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from normlab.norms.common.base import Norm
from normlab.norms.common.declaration import BATCH, Declaration
from normlab.norms.common.running import RunningNorm
from normlab.norms.common.tracing import leaf


class PredictionTimeLayer(RunningNorm):
    """See `PredictionTime`. State as `nn.BatchNorm*d`, so that weights go both ways."""

    declaration = Declaration(BATCH)

    @leaf
    def forward(self, x: Tensor) -> Tensor:  # (N, C, *space) -> the same
        self.check_input(x)
        if self.training:
            return self.normalize(x)  # running statistics are kept for whoever loads the weights into a BatchNorm
        return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self._eps)


@dataclass(frozen=True)
class PredictionTime(Norm):
    """y = γ (x - μ) / √(σ² + ε) + β with μ, σ² over batch and space of each channel, in evaluation too.

    Input (N, C, *space). Training is batch norm's, and moves running statistics that only a BatchNorm with the same
    state would use. Helps where the test data's brightness, contrast or noise differ from training. Does not help, and
    harms, where a test batch is small or sorted by class: its statistics are then those of the class.

    Nado et al., Evaluating Prediction-Time Batch Normalization, 2020, arXiv:2006.10963.
    """

    eps: float = 1e-5
    momentum: float = 0.1

    @property
    def name(self) -> str:
        return "prediction_time"

    def layer(self, num_features: int, dims: int) -> nn.Module:
        return PredictionTimeLayer(self.name, num_features, dims, self.eps, self.momentum)
