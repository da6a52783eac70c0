"""Domain-specific batch normalization: statistics and parameters for each domain that samples come from."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from normlab.distributed import collectives
from normlab.norms.common.base import Norm
from normlab.norms.common.declaration import BATCH, Declaration
from normlab.norms.common.layer import UnfoldableEps
from normlab.norms.common.running import RunningNorm, SeveralNorms
from normlab.norms.common.tracing import leaf


class DomainLayer(SeveralNorms):
    """See `Domain`. `domain` is that of the next batch; `sets` has the state of an `nn.BatchNorm*d` for each."""

    declaration = Declaration(BATCH, running_stats=True, foldable=True, synchronisable=True, selective=True)

    def __init__(self, num_features: int, dims: int, num_domains: int, eps: float, momentum: float | None):
        super().__init__("domain", num_features, dims, num_domains, eps, momentum)
        self.domain = 0  # the domain that the next batches come from

    @property
    def eps(self) -> Any:
        """The ε of every `NormLayer`; an `UnfoldableEps` also where another domain than the first is set."""
        if self.domain:
            return UnfoldableEps(
                "norm=domain: the layer before it can absorb the first domain's map alone, and domain "
                f"{self.domain} is set: set_domain(network, 0) before fusing"
            )
        return super().eps

    @property
    def in_use(self) -> RunningNorm:
        """The set of the next batch's domain."""
        return self.sets[self.domain]

    @leaf
    def forward(self, x: Tensor) -> Tensor:  # (N, C, *space) -> the same
        self.check_input(x)
        chosen = self.in_use
        return chosen.normalize(x) if self.training else chosen.evaluate(x)


@dataclass(frozen=True)
class Domain(Norm):
    """y = γ_d (x - μ) / √(σ² + ε) + β_d with batch norm's μ, σ² of batches of domain d; input (N, C, *space).

    Each of `num_domains` domains has γ, β and running statistics of its own; the first's load as a BatchNorm's. All
    samples of a batch are of one domain, the first until another is set: `task.set_domain(1)` before the batch, or
    batches (x, y, domain). Evaluation is batch norm's with the statistics of the domain set then. Helps where one
    network learns from several sources, as in domain adaptation; does not help where their statistics agree, as each
    domain then learns from its own samples only.

    Chang et al., Domain-Specific Batch Normalization for Unsupervised Domain Adaptation, 2019, arXiv:1906.03950.
    """

    num_domains: int = 2
    eps: float = 1e-5
    momentum: float | None = 0.1

    def layer(self, num_features: int, dims: int) -> nn.Module:
        return DomainLayer(num_features, dims, self.num_domains, self.eps, self.momentum)


def set_domain(network: nn.Module, domain: int) -> None:
    """Sets the domain of the batches to come in every layer of `network`.

    Raises ValueError where a layer lacks it, and where processes that share their statistics set another.
    """
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, DomainLayer)]
    for name, layer in layers:
        if domain not in range(len(layer.sets)):
            raise ValueError(f"domain {domain} of a batch: {name} has {len(layer.sets)}; set norm.num_domains")
        layer.domain = domain
    joint = next((layer for _, layer in layers if layer.joint), None)
    if joint is not None:  # one asks for all
        _check_same_domain(joint)


def _check_same_domain(layer: DomainLayer) -> None:
    domains = collectives.gather(layer.running_mean.new_tensor([layer.domain]), "norm=domain").int().flatten().tolist()
    if len(set(domains)) > 1:
        raise ValueError(
            f"norm=domain: the processes' batches are of domains {', '.join(map(str, domains))}; synchronised they are "
            "one batch, of one domain: let all take the same, or set trainer.sync_batchnorm=false"
        )
