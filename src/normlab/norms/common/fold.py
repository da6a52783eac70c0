"""Folds norms into the layers beside them, for a network that only evaluates from now on.

from normlab import fold
folded = fold(network)
"""

import copy
from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from normlab.norms.common.declaration import declaration
from normlab.norms.common.neighbours import Neighbours, probed, traced
from normlab.norms.common.replace import has_hooks, put

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
KINDS = (nn.Linear, *CONVOLUTIONS)
SETTINGS = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
SPATIAL = {nn.BatchNorm2d: 2, nn.BatchNorm3d: 3}  # torch's norms whose class tells the dimensions; BatchNorm1d has two
FAR = 2.0**20  # where a map's slope is measured, so that no shift drowns it


class ChannelMap(nn.Module):
    """y = scale · x + shift by constants (C,), for (N, C, *space): what becomes of a norm that no layer absorbs."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor):
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, *space) -> the same
        shape = (1, -1, *[1] * (x.ndim - 2))
        return torch.addcmul(self.shift.view(shape), x, self.scale.view(shape)).to(x.dtype)

    def extra_repr(self) -> str:
        return str(len(self.scale))


def fold(network: nn.Module, sample: Tensor | None = None) -> nn.Module:
    """A copy of `network` for evaluation, without a norm whose declaration says that it can be folded.

    Such a norm is, in evaluation, a fixed affine map of each channel (`Declaration.foldable`; of norm=domain, the map
    of the domain that is set). Weight and bias of the convolution or linear layer right before it absorb the map; if
    there is none, those of the one right behind it, where that is exact: not through zero padding, which the norm would
    not have shifted. Elsewhere, as behind a sum or an activation, or where a neighbour runs twice or its output has
    other readers, the norm becomes a `ChannelMap`. Layers whose weight is standardized or centred before its use, as
    under norm=weight_std and mabn, become plain ones with the weight that they used. Outputs are those of the network
    up to rounding. What has hooks, or parameters that the network reads itself, is left as it is; so are norms that
    take their statistics from what they evaluate.

    sample: a batch of inputs, to see the layers' order by. Without one torch.fx traces the network, which cannot follow
    every one, nor tell whether a BatchNorm1d behind a linear layer gets (N, C) or (N, C, L): then it is needed.
    The copy is in evaluation mode, and none of its parameters asks for a gradient. Raises ValueError where a sample is
    needed, and where the network's way depends on the values of its input.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    norms = [layer for layer in network.modules() if _is_foldable(layer)]
    linear = [layer for layer in network.modules() if _kind(layer) is not None]
    layers = {*norms, *linear}
    seen = traced(network, layers) if sample is None else probed(network, layers, sample)
    usable = {layer for layer in layers if not has_hooks(layer) and not _is_read(layer, seen)}
    new = {layer: _plain(layer) for layer in linear if layer in usable and hasattr(layer, "effective_weight")}
    for norm in norms:
        if norm in usable:
            new |= _folded(norm, seen, {layer: new.get(layer, layer) for layer in linear if layer in usable})
    return put(network, new)


def _is_foldable(layer: nn.Module) -> bool:
    declared = declaration(layer)
    return declared is not None and declared.foldable


def _is_read(layer: nn.Module, seen: Neighbours) -> bool:
    return any(id(tensor) in seen.read for tensor in (*layer.parameters(), *layer.buffers()))


def _kind(layer: nn.Module) -> type[nn.Module] | None:
    """The class of torch whose map a convolution or linear layer has; nobody vouches for what other subclasses do."""
    own = hasattr(layer, "effective_weight")
    return next((kind for kind in KINDS if type(layer) is kind or (own and isinstance(layer, kind))), None)


def _folded(norm: Any, seen: Neighbours, linear: Mapping[nn.Module, Any]) -> dict[nn.Module, nn.Module]:
    """What stands in the place of a norm and of the neighbour that absorbs it. linear: what may, as it is by now."""
    if isinstance(norm, nn.Identity):
        return {norm: nn.Identity()}
    spatial = _spatial(norm, seen)
    scale, shift = _map_of(norm, spatial or 0)
    before: Any = seen.pairs.get(norm)
    behind: Any = seen.behind(norm)
    if before in linear and _fits(linear[before], norm, spatial, outputs=True):
        return {norm: nn.Identity(), before: _then_mapped(linear[before], scale, shift)}
    if behind in linear and not _pads(linear[behind]) and _fits(linear[behind], norm, spatial, outputs=False):
        return {norm: nn.Identity(), behind: _of_mapped(linear[behind], scale, shift)}
    dtype = next(chain(norm.parameters(), norm.buffers())).dtype
    return {norm: ChannelMap(scale.to(dtype), shift.to(dtype)).eval()}


def _spatial(norm: Any, seen: Neighbours) -> int | None:
    """The spatial dimensions of a norm's input; None where its class serves several and nothing was seen."""
    if norm in seen.axes:
        return seen.axes[norm] - 2
    return getattr(norm, "dims", SPATIAL.get(type(norm)))


def _fits(layer: Any, norm: Any, spatial: int | None, outputs: bool) -> bool:
    """Whether the channels of a norm are a layer's outputs, or its inputs. Raises ValueError where nobody can tell."""
    if isinstance(layer, nn.Linear):
        width, needed = (layer.out_features if outputs else layer.in_features), 0
    else:
        width, needed = (layer.out_channels if outputs else layer.in_channels), len(layer.kernel_size)
    if width != norm.num_features:
        return False
    if spatial is None and needed == 0:
        raise ValueError(
            f"{type(norm).__name__} beside {layer} serves (N, C) and (N, C, L), which only the first lets fold: give a "
            "batch to send through the network, fold(network, sample)"
        )
    return spatial in (needed, None)


def _pads(layer: Any) -> bool:
    """Whether a layer sees zeros, or leaves out taps, at the border, where a shifted input would show."""
    if isinstance(layer, nn.Linear):
        return False
    padded = layer.padding != "valid" and any(layer.padding)  # the word "same" counts as padding
    return isinstance(layer, TRANSPOSED) or (padded and layer.padding_mode == "zeros")


@torch.no_grad()
def _map_of(norm: nn.Module, spatial: int) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) of a norm's map in evaluation, measured in float64 at three values of each channel."""
    double: Any = copy.deepcopy(norm).double()
    device = next(chain(norm.parameters(), norm.buffers())).device
    values = torch.tensor([0, FAR, -FAR], dtype=torch.float64, device=device)
    x = values.view(3, 1, *[1] * spatial).repeat(1, double.num_features, *[1] * spatial)
    shift, high, low = double(x).flatten(1)
    scale = (high - low) / (2 * FAR)
    assert torch.allclose(high + low, 2 * shift, rtol=0, atol=1e-9 * float(high.abs().max())), norm
    return scale, shift


def _then_mapped(layer: Any, scale: Tensor, shift: Tensor) -> nn.Module:
    """A layer that gives scale · layer(x) + shift, with a map of its output channels."""
    weight = layer.weight.double()
    if isinstance(layer, TRANSPOSED):  # its weight is (in, out of a group, …)
        by_group = weight.unflatten(0, (layer.groups, -1))
        weight = (by_group * scale.view(layer.groups, 1, -1, *[1] * (weight.ndim - 2))).flatten(0, 1)
    else:
        weight = weight * scale.view(-1, *[1] * (weight.ndim - 1))
    return _plain(layer, weight, shift if layer.bias is None else shift + scale * layer.bias)


def _of_mapped(layer: Any, scale: Tensor, shift: Tensor) -> nn.Module:
    """A layer that gives layer(scale · x + shift), with a map of its input channels."""
    weight = layer.weight.double()
    groups, ones = getattr(layer, "groups", 1), [1] * (weight.ndim - 2)
    by_group = weight.unflatten(0, (groups, -1))  # (groups, out of a group, in of a group, …)
    scaled = by_group * scale.view(groups, 1, -1, *ones)
    constant = (by_group * shift.view(groups, 1, -1, *ones)).flatten(2).sum(2).flatten()
    return _plain(layer, scaled.flatten(0, 1), constant if layer.bias is None else constant + layer.bias)


def _plain(layer: Any, weight: Tensor | None = None, bias: Tensor | None = None) -> nn.Module:
    """A layer of torch's own class with the given weight and bias, or else those that `layer` uses."""
    kind: Any = _kind(layer)
    weight = layer.effective_weight() if weight is None else weight
    bias = layer.bias if bias is None else bias
    if kind is nn.Linear:
        new = kind(layer.in_features, layer.out_features, device="meta")
    else:
        keys = SETTINGS + (("output_padding",) if kind in TRANSPOSED else ())
        new = kind(**{key: getattr(layer, key) for key in keys}, device="meta")
    for name, values in (("weight", weight), ("bias", bias)):
        kept = None if values is None else nn.Parameter(values.detach().to(layer.weight.dtype), requires_grad=False)
        new.register_parameter(name, kept)
    return new.eval()
