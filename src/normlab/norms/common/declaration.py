"""What a normalization layer says about itself, read by guards, synchronisation, callbacks and export.

The layers of normlab carry a `declaration` attribute. torch's layers are known here by their exact type: nobody vouches
for what a subclass does. The subclasses that fully_shard makes behave as their bases.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from normlab.distributed.shards import kind_of

Axis = Literal["batch", "channel", "space"]


@dataclass(frozen=True)
class Declaration:
    """Facts of one layer whose input is (N, C, *space).

    axes: over which axes one statistic is taken in training; `channel` means the channels of one of `groups` groups.
    samples: the fewest samples that a training batch must have.
    dimension: how many channels one statistic is of, jointly; it needs more values per channel than that.
    centred: the mean is taken off before normalizing.
    running_stats: evaluation uses running statistics; without them it computes them as training does.
    activation: the layer contains its activation.
    foldable: in evaluation it is a fixed affine map of each channel, which the layer before it can absorb.
    synchronisable: `Synchronise` can make its training on several processes that of one on the joined batch; not so if
        it cuts a batch into a number of pieces, or takes batch statistics in evaluation too.
    selective: a batch may leave some of its parameters without a gradient.
    drop_in: it can replace a BatchNorm in any network.
    channels_last: its input is (N, *space, C).
    contiguous_on: types of devices on which its kernel takes contiguous tensors alone: in torch's layout channels_last
        its input is copied before it, and its output by the convolution behind it.
    """

    axes: frozenset[Axis]
    groups: int = 1
    samples: int = 1
    dimension: int = 1
    centred: bool = True
    running_stats: bool = False
    activation: bool = False
    foldable: bool = False
    synchronisable: bool = False
    selective: bool = False
    drop_in: bool = True
    channels_last: bool = False
    contiguous_on: frozenset[str] = frozenset()

    @property
    def batch_stats(self) -> bool:
        """True if training mixes the samples of a batch."""
        return "batch" in self.axes

    def values(self, shape: Sequence[int]) -> int | None:
        """How many values one statistic is taken over for an input of `shape`, (N, C, *space); None without statistics.

        A single value has no variance, and no more than `dimension` have no covariance of full rank.
        """
        if not self.axes:
            return None
        channels, space = (shape[-1], shape[1:-1]) if self.channels_last else (shape[1], shape[2:])
        sizes = {"batch": shape[0], "channel": channels // self.groups, "space": math.prod(space)}
        return math.prod(sizes[axis] for axis in self.axes)


BATCH: frozenset[Axis] = frozenset({"batch", "space"})

SPACE: frozenset[Axis] = frozenset({"space"})

SAMPLE: frozenset[Axis] = frozenset({"channel", "space"})

GROUP_NORM = frozenset({"cuda"})  # `contiguous_on` of what calls torch's group norm, and its instance norm


def _batch(layer: nn.modules.batchnorm._BatchNorm) -> Declaration:
    running = layer.running_mean is not None
    return Declaration(BATCH, running_stats=running, foldable=running, synchronisable=running)


def _instance(layer: nn.modules.batchnorm._NormBase) -> Declaration:
    return Declaration(SPACE, running_stats=layer.running_mean is not None, contiguous_on=GROUP_NORM)


def _group(layer: nn.GroupNorm) -> Declaration:
    return Declaration(SAMPLE, groups=layer.num_groups, contiguous_on=GROUP_NORM)


def _layer(layer: nn.LayerNorm) -> Declaration:
    return Declaration(frozenset({"channel"}), channels_last=True)  # on (N, C) both are the same


TORCH: dict[type[nn.Module], Callable[..., Declaration]] = {
    nn.BatchNorm1d: _batch,
    nn.BatchNorm2d: _batch,
    nn.BatchNorm3d: _batch,
    nn.InstanceNorm1d: _instance,
    nn.InstanceNorm2d: _instance,
    nn.InstanceNorm3d: _instance,
    nn.GroupNorm: _group,
    nn.LayerNorm: _layer,
}


def declaration(layer: nn.Module) -> Declaration | None:
    """The declaration of a normalization layer; None for any other module."""
    kind = kind_of(layer)
    if kind in TORCH:
        return TORCH[kind](layer)
    return getattr(layer, "declaration", None)
