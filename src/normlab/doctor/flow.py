"""What goes through the norm layers of a network: channels that carry nothing, and biases that a layer takes off."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from normlab.doctor.marks import Forward
from normlab.doctor.samples import Batch
from normlab.norms.common.declaration import declaration
from normlab.norms.common.population import declared_or_batch

RECTIFIERS = (nn.ReLU, nn.ReLU6)
FAINT = 1e-4  # of the layer's largest |γ|; what is multiplied by so little is lost in the sums behind it


@dataclass
class Flow:
    """What was seen, by layer.

    dead: (C,) whether a channel carries nothing. before: the module whose output a layer takes, by its name.
    """

    dead: dict[str, Tensor] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)


def watch(network: nn.Module, batches: Sequence[Batch], forward: Forward) -> Flow:
    """Sends batches through. A channel is dead whose input does not vary, whose γ is next to nothing, or which a ReLU
    right behind the layer never lets through."""
    seen = _Watch(network)
    handles = seen.hooks()
    try:
        with torch.no_grad():
            for batch in batches:
                seen.outputs.clear()
                forward(network, batch)
    finally:
        for handle in handles:
            handle.remove()
    return seen.flow()


class _Watch:
    def __init__(self, network: nn.Module):
        self.names = {module: name for name, module in network.named_modules()}
        self.layers = {module for module in self.names if declared_or_batch(module) is not None}
        self.outputs: dict[int, tuple[nn.Module, Tensor]] = {}  # of the present forward pass, by the output's identity
        self.before: dict[str, set[str | None]] = {}
        self.varies: dict[nn.Module, tuple[Tensor, Tensor]] = {}  # lowest and highest input of each channel
        self.passes: dict[nn.Module, Tensor] = {}  # whether a ReLU behind a layer let a channel through

    def hooks(self) -> list:
        handles = []
        for module in self.names:
            if module in self.layers or isinstance(module, RECTIFIERS):
                handles.append(module.register_forward_pre_hook(self._enter))
            if module in self.layers or isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
                handles.append(module.register_forward_hook(self._leave))
        return handles

    def _enter(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0]
        maker = self.outputs.get(id(x), (None, None))[0]
        if isinstance(module, RECTIFIERS):
            if maker is not None and maker in self.layers:
                positive = (x > 0).transpose(0, 1).flatten(1).any(1)
                self.passes[maker] = self.passes.get(maker, torch.zeros_like(positive)) | positive
            return
        self.before.setdefault(self.names[module], set()).add(None if maker is None else self.names[maker])
        columns = x.detach().transpose(0, 1).flatten(1)
        low, high = columns.amin(1), columns.amax(1)
        if module in self.varies:
            low, high = torch.minimum(low, self.varies[module][0]), torch.maximum(high, self.varies[module][1])
        self.varies[module] = low, high

    def _leave(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        self.outputs[id(output)] = module, output  # the tensor is kept, so that its identity is not given away

    def flow(self) -> Flow:
        flow = Flow()
        for layer, (low, high) in self.varies.items():
            declared = declaration(layer)
            if declared is not None and declared.channels_last:
                continue
            name = self.names[layer]
            dead = low == high
            weight = getattr(layer, "weight", None)
            if isinstance(weight, Tensor) and weight.shape == dead.shape:
                dead = dead | (weight.abs() < FAINT * weight.abs().max())
            if layer in self.passes:
                dead = dead | ~self.passes[layer]
            flow.dead[name] = dead
        for name, makers in self.before.items():
            (maker, *others) = makers
            if maker is not None and not others:
                flow.before[name] = maker
        return flow
