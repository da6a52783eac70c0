"""Group normalization: torch's own layer."""

from dataclasses import dataclass

from torch import nn

from normlab.norms.common.base import Norm

MOST_GROUPS, FEWEST_FEATURES = 32, 4


def default_groups(num_features: int) -> int:
    """The largest divisor of `num_features` up to 32 that leaves at least 4 features a group; else 1."""
    fits = (g for g in range(min(MOST_GROUPS, num_features // FEWEST_FEATURES), 0, -1) if num_features % g == 0)
    return next(fits, 1)


def number_of_groups(num_groups: int | None, num_features: int) -> int:
    """The groups of a layer: the default for None. Raises ValueError for a number that does not divide."""
    groups = default_groups(num_features) if num_groups is None else num_groups
    if groups < 1 or num_features % groups:
        raise ValueError(f"norm.num_groups={groups} does not divide {num_features} features; use null or a divisor")
    return groups


@dataclass(frozen=True)
class Group(Norm):
    """y = γ (x - μ) / √(σ² + ε) + β with μ, σ² over the channels of a group and space of each sample.

    Input (N, C, *space). Training and evaluation are the same; there is no state besides γ and β. `num_groups=None`
    takes `default_groups`; a number must divide C. Does not help where batches are large and like the test data:
    there batch norm usually scores higher. On the CPU in channels_last torch's kernel takes E[x²] - μ² in the input's
    precision: where |μ| is thousands of times σ, float32 leaves no variance.

    Wu & He, Group Normalization, 2018, arXiv:1803.08494.
    """

    num_groups: int | None = None
    eps: float = 1e-5
    affine: bool = True

    def layer(self, num_features: int, dims: int) -> nn.Module:
        return nn.GroupNorm(number_of_groups(self.num_groups, num_features), num_features, self.eps, self.affine)
