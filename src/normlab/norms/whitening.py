"""Iterative whitening: batch norm that takes off the correlations of channels too."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from normlab.norms.common.base import Norm
from normlab.norms.common.checkpointing import moves_statistics
from normlab.norms.common.declaration import BATCH, Declaration
from normlab.norms.common.layer import NormLayer, in_float32
from normlab.norms.common.population import Population
from normlab.norms.common.running import tracking_factor
from normlab.norms.common.tracing import check_not_exported, leaf

Method = Literal["newton", "eigh"]
MOST_ITERATIONS = 15  # from about 20 on the rounding of a rank-deficient Σ in float32 grows without bound


def newton_inverse_root(cov: Tensor, iterations: int) -> Tensor:
    """About Σ^-½ (groups, d, d) by Newton-Schulz steps on Σ / tr Σ, whose eigenvalues are at most 1.

    Without rounding it is the paper's P ← ½ (3 P - P³ Σ / tr Σ). That form needs P and Σ to commute, which rounding
    ends: in float32 it can be far off after 10 steps and NaN after 15. Coupled steps do not drift apart:
    M = ½ (3 I - P Y), P ← M P, Y ← Y M from P = I and Y = Σ / tr Σ. Higham, Functions of Matrices, 2008, chapter 6.
    """
    eye = torch.eye(cov.shape[-1], dtype=cov.dtype, device=cov.device)
    trace = cov.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    y = cov / trace
    m = p = 1.5 * eye - 0.5 * y  # the first step, from P = I
    for _ in range(iterations - 1):
        y = y @ m
        m = torch.baddbmm(1.5 * eye, p, y, alpha=-0.5)
        p = m @ p
    return p * trace.rsqrt()


class EighInverseRoot(torch.autograd.Function):
    """Σ^-½ = U Λ^-½ Uᵀ (groups, d, d) from the eigenvalues Λ, at least `least`, and eigenvectors U of Σ.

    The gradient is not taken through U, which is undefined where eigenvalues are equal. With G the symmetric part of
    the upstream gradient, the derivative of a function of a matrix (Daleckii & Krein) is
    dΣ = U (K ∘ Uᵀ G U) Uᵀ with K_ij = (λ_i^-½ - λ_j^-½) / (λ_i - λ_j) = -1 / (√λ_i √λ_j (√λ_i + √λ_j)), always finite.
    It cannot be differentiated again, and torch.export, which would go through U, is refused in training.
    """

    @staticmethod
    def forward(ctx: Any, cov: Tensor, least: float) -> Tensor:
        values, vectors = torch.linalg.eigh(cov)
        roots = values.clamp_(min=least).sqrt_()  # rounding may leave less, even negative ones
        ctx.save_for_backward(roots, vectors)
        return (vectors / roots.unsqueeze(-2)) @ vectors.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        roots, vectors = ctx.saved_tensors
        i, j = roots.unsqueeze(-1), roots.unsqueeze(-2)
        inner = vectors.mT @ (upstream + upstream.mT) @ vectors / 2
        return vectors @ (-inner / (i * j * (i + j))) @ vectors.mT, None


class WhiteningLayer(NormLayer):
    """See `Whitening`. State: weight, bias, running_mean (C,), running_whitening (groups, size, size), the counter."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_whitening: Tensor
    num_batches_tracked: Tensor

    def __init__(self, num_features: int, dims: int, option: "Whitening"):
        super().__init__("whitening", num_features, dims, option.eps)
        self.option = option
        self.size = next(d for d in range(min(option.group_size, num_features), 0, -1) if num_features % d == 0)
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_whitening", torch.eye(self.size).repeat(num_features // self.size, 1, 1))
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        self.declaration = Declaration(BATCH, dimension=self.size, running_stats=True, foldable=self.size == 1)

    @property
    def running_var(self) -> Tensor:
        """The variances (C,) for which the running whitening's diagonal is batch norm's; set, it is batch norm's."""
        return self.running_whitening.diagonal(dim1=1, dim2=2).flatten().pow(-2) - self._eps

    @running_var.setter
    def running_var(self, variances: Tensor) -> None:
        self.running_whitening.copy_(torch.diag_embed((variances + self._eps).rsqrt().view(-1, self.size)))

    def _begin(self, name: str, values: Tensor) -> None:
        if name == "running_whitening":
            values.copy_(torch.eye(self.size, dtype=values.dtype, device=values.device))
        else:
            super()._begin(name, values)

    @leaf
    def forward(self, x: Tensor) -> Tensor:  # (N, C, *space) -> the same
        self.check_input(x)
        self.check_not_empty(x)
        if self.training and x.numel() // self.num_features <= self.size:
            raise ValueError(
                f"norm=whitening: Expected more than {self.size} values per channel to whiten {self.size} channels "
                f"together, got an input of shape {tuple(x.shape)}; raise data.batch_size or lower norm.group_size"
            )
        return in_float32(self._whiten, x)

    def _whiten(self, x: Tensor) -> Tensor:
        columns = x.transpose(0, 1).reshape(self.running_whitening.shape[0], self.size, -1)  # (groups, size, N · space)
        mean = columns.mean(2, keepdim=True) if self.training else self._column(self.running_mean, x)
        centred = columns - mean
        whitening = self.running_whitening.to(x)
        if self.training:
            whitening = self._whitening(centred)
            self._track(mean, whitening)
        y = torch.baddbmm(self._column(self.bias, x), whitening * self._column(self.weight, x), centred)
        # a copy in the memory format of x
        return torch.empty_like(x).copy_(y.view(self.num_features, x.shape[0], *x.shape[2:]).transpose(0, 1))

    def take_over(self, population: Population, of_batch: bool) -> None:
        """See `normlab.norms.common.population.take_over`."""
        eye = torch.eye(self.size, dtype=population.mean.dtype, device=population.mean.device)
        self.running_mean.copy_(population.mean)
        self.running_whitening.copy_(self._inverse_root(population.covariance + self._eps * eye))

    def _whitening(self, centred: Tensor) -> Tensor:
        eye = torch.eye(self.size, dtype=centred.dtype, device=centred.device)
        return self._inverse_root(torch.baddbmm(self._eps * eye, centred, centred.mT, alpha=1 / centred.shape[2]))

    def _inverse_root(self, cov: Tensor) -> Tensor:
        if self.option.method == "eigh":
            check_not_exported(f"{self.name}, method=eigh")
            return EighInverseRoot.apply(cov, self._eps)
        return newton_inverse_root(cov, self.option.iterations)

    @torch.no_grad()
    def _track(self, mean: Tensor, whitening: Tensor) -> None:
        if not moves_statistics():
            return
        self.num_batches_tracked.add_(1)
        factor = tracking_factor(self.option.momentum, self.num_batches_tracked, mean)
        self.running_mean.lerp_(mean.flatten().to(self.running_mean), factor)
        self.running_whitening.lerp_(whitening.to(self.running_whitening), factor)

    def _column(self, values: Tensor, x: Tensor) -> Tensor:
        """(C,) as (groups, size, 1), in the type of `x`."""
        return values.to(x.dtype).view(-1, self.size, 1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, size={self.size}, method={self.option.method}, momentum={self.option.momentum}"


@dataclass(frozen=True)
class Whitening(Norm):
    """y = γ W (x - μ) + β with W ≈ (Σ + ε I)^-½ and Σ the covariance of a group's channels over batch and space.

    Input (N, C, *space), 0 to 3 dimensions. `group_size` is the most channels that are whitened together: a layer takes
    the largest divisor of C up to it, so a prime C above it leaves groups of one channel, which is batch norm.
    `method=newton` takes `iterations` Newton-Schulz steps, few of which leave directions of small variance small;
    `method=eigh` takes U Λ^-½ Uᵀ (ZCA) and is the reference for it, slow on GPUs. Σ is biased. Training uses the
    batch's μ and W and moves running_mean and running_whitening (W itself, not Σ) towards them by `momentum` (None:
    cumulative average); evaluation uses those. 16-bit inputs are computed in float32.
    Does not help where channels are many for the values of a batch: W then follows the batch's noise.
    Raises ValueError for a training batch with no more values per channel than channels in a group.

    Huang, Zhou, Zhu, Liu & Shao, Iterative Normalization: Beyond Standardization towards Efficient Whitening, 2019,
    arXiv:1904.03441; its eigendecomposition: Huang, Yang, Lang & Deng, Decorrelated Batch Normalization, 2018,
    arXiv:1804.08450.
    """

    group_size: int = 8
    method: Method = "newton"
    iterations: int = 5
    eps: float = 1e-5
    momentum: float | None = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_size < 1:
            raise ValueError(f"norm=whitening: group_size={self.group_size} is below 1")
        if self.method not in get_args(Method):
            raise ValueError(f"norm=whitening: method={self.method}; expected one of {', '.join(get_args(Method))}")
        if not 1 <= self.iterations <= MOST_ITERATIONS:
            raise ValueError(
                f"norm=whitening: iterations={self.iterations} is not between 1 and {MOST_ITERATIONS}; more would "
                "amplify rounding, and method=eigh takes the exact root"
            )

    def layer(self, num_features: int, dims: int) -> nn.Module:
        return WhiteningLayer(num_features, dims, self)
