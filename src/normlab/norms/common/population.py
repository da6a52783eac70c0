"""The statistics of all inputs that a layer has had in many batches, and how a layer takes them over."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from normlab.distributed import collectives
from normlab.norms.common.declaration import Declaration, declaration
from normlab.norms.common.layer import has_16_bits
from normlab.norms.common.moments import whole_moments


class Population:
    """Count, mean and variance of the values of each channel, gathered batch by batch in float64.

    channels: their number. size: the channels of one group, within which covariances are kept too. within: variances
    are those within a sample, averaged over samples, as instance norm keeps them.

    Two sets of values become one by the formulas of Chan, Golub & LeVeque, Updating Formulae and a Pairwise Algorithm
    for Computing Sample Variances, 1979, in which nothing large is taken off something large.
    """

    def __init__(self, channels: int, device: torch.device, size: int = 1, within: bool = False):
        # Apple's GPUs have no float64.
        exact = {"dtype": torch.float64, "device": torch.device("cpu") if device.type == "mps" else device}
        self.size, self.within = size, within
        self.count = torch.zeros((), **exact)  # values of each channel; with `within`, samples
        self.mean = torch.zeros(channels, **exact)
        # sums of products of what is left when the mean is taken off
        self.squares = torch.zeros(channels // size, size, size, **exact)

    @torch.no_grad()
    def see(self, x: Tensor) -> None:
        """Takes in a batch (N, C, *space), which may be empty."""
        if not x.numel():
            return
        x = x.detach().to(self.mean.device)
        x = x.float() if has_16_bits(x) else x
        if self.within:
            var, mean = torch.var_mean(x.flatten(2), 2)
            count, mean, squares = len(x), mean.mean(0), var.sum(0).view(-1, 1, 1)
        elif self.size == 1:
            count = x.numel() // x.shape[1]
            _, mean, var = whole_moments(x)  # torch's own var_mean takes several times as long
            squares = var.view(-1, 1, 1) * count
        else:
            columns = x.transpose(0, 1).reshape(len(self.squares), self.size, -1)
            count, mean = columns.shape[2], columns.mean(2)
            centred = columns - mean.unsqueeze(2)
            squares = centred @ centred.mT
        self._join(torch.full_like(self.count, count), mean.flatten().double(), squares.double())

    def join_ranks(self, layer: str) -> None:
        """Joins the values of all processes; every one of them must call it. layer: its name, for messages."""
        if not collectives.several():
            return
        own = torch.cat([self.count.view(1), self.mean, self.squares.flatten()])
        of_ranks = collectives.gather(own, layer)
        self.count, self.mean, self.squares = map(torch.zeros_like, (self.count, self.mean, self.squares))
        for count, mean, squares in (
            each.split([1, *map(Tensor.numel, (self.mean, self.squares))]) for each in of_ranks
        ):
            if count:
                self._join(count.squeeze(), mean, squares.view_as(self.squares))

    def _join(self, count: Tensor, mean: Tensor, squares: Tensor) -> None:
        total = self.count + count
        apart = mean - self.mean
        self.mean = self.mean + apart * (count / total)
        self.squares = self.squares + squares
        if not self.within:
            groups = apart.view(len(squares), self.size, 1)
            self.squares += groups @ groups.mT * (self.count * count / total)
        self.count = total

    def facts(self) -> Tensor:
        """The count, and 1 where mean and squares are finite or else 0: (2,), for one read of both."""
        finite = self.mean.isfinite().all() & self.squares.isfinite().all()
        return torch.stack([self.count, finite.to(self.count)])

    @property
    def variance(self) -> Tensor:
        """The unbiased variance of each channel (C,)."""
        return self._diagonal() / (self.count if self.within else self.count - 1)

    @property
    def biased_variance(self) -> Tensor:
        """The biased variance of each channel (C,), by which training normalises a batch."""
        return self._diagonal() / self.count

    @property
    def covariance(self) -> Tensor:
        """The biased covariance of the channels of each group, (C / size, size, size)."""
        return self.squares / self.count

    def _diagonal(self) -> Tensor:
        return self.squares.diagonal(dim1=1, dim2=2).flatten()


def population_of(layer: nn.Module) -> Population:
    """An empty population for the inputs of a layer, or of one of its sets of statistics."""
    declared = declared_or_batch(layer)
    size, within = 1, False
    if declared is not None and declared.axes:  # a frozen layer declares none
        size, within = declared.dimension, not declared.batch_stats
    running = next(b for name, b in layer.named_buffers(recurse=False) if name.startswith("running_") and b.ndim == 1)
    return Population(len(running), running.device, size, within)


def read_together(tensors: Sequence[Tensor]) -> list[Any]:
    """The values of tensors of one shape, by one read, since a GPU would wait for each."""
    return torch.stack([tensor.to(tensors[0].device) for tensor in tensors]).tolist() if tensors else []


def check(name: str, population: Population, count: float, finite: bool) -> None:
    """Raises ValueError for a population without a variance, or without finite statistics."""
    check_variance(name, population, count)
    check_finite(name, finite)


def check_variance(name: str, population: Population, count: float) -> None:
    """Raises ValueError for a single value of each channel, unless variances are those within a sample."""
    if count < 2 and not population.within:
        raise ValueError(
            f"{name}: a single value of each channel has no variance; take larger batches, or in_order=True"
        )


def check_finite(name: str, finite: bool) -> None:
    """Raises ValueError where statistics are not."""
    if not finite:
        raise ValueError(f"{name}: its inputs hold NaN or inf")


def declared_or_batch(layer: nn.Module) -> Declaration | None:
    """The declaration of a layer; of an unknown subclass of torch's batch norm, that of its base.

    timm's and torchvision's blocks bring such subclasses. What their running statistics are of is known.
    """
    declared = declaration(layer)
    if declared is None and isinstance(layer, nn.modules.batchnorm._BatchNorm):
        kind = nn.BatchNorm2d(1)
        kind.running_mean = layer.running_mean
        return declaration(kind)
    return declared


@torch.no_grad()
def take_over(layer: nn.Module, population: Population, of_batch: bool = False) -> None:
    """Makes a population's statistics the running statistics of a layer, in place.

    of_batch: the population is one batch, which the layer then normalises as it would in training. A layer with other
    buffers than running_mean and running_var has a method `take_over` of its own, with these two arguments.
    """
    own = getattr(layer, "take_over", None)
    if own is not None:
        own(population, of_batch)
        return
    layer.get_buffer("running_mean").copy_(population.mean)
    layer.get_buffer("running_var").copy_(population.biased_variance if of_batch else population.variance)
