"""One training step on a copy of a network, to see what it does to the norm layers."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from normlab.doctor.marks import Measure
from normlab.doctor.samples import Batch
from normlab.norms.common.estimate import keeps_statistics

Step = Callable[[nn.Module, Any], Any]


@dataclass(frozen=True)
class Replay:
    """What a step did, by layer.

    calls: how often a forward pass runs the layer. counted: how many batches its counter went on by. moved: whether its
    running statistics moved. still: whether none of its parameters take a gradient though it has some.
    """

    calls: dict[str, int]
    counted: dict[str, int]
    moved: dict[str, bool]
    still: dict[str, bool]


def replayed(network: nn.Module, batch: Batch, measure: Measure, step: Step | None) -> Replay | None:
    """Replays a step; None where no layer keeps running statistics.

    step: forward and backward passes of a training step, in modes of its own; without it one forward and one backward
    pass, in training mode.
    """
    network = copy.deepcopy(network)
    layers = {name: layer for name, layer in network.named_modules() if keeps_statistics(layer)}
    if not layers:
        return None
    calls = _calls(network, layers, batch, measure)
    before = {name: _state(layer) for name, layer in layers.items()}
    if step is None:
        if not network.training:
            network.train()
        output = measure.forward(network, batch)
        measure.loss(output, batch[1]).backward()
    else:
        step(network, batch)
    after = {name: _state(layer) for name, layer in layers.items()}
    moved = {name: any((a != b).any() for a, b in zip(before[name], after[name], strict=True)) for name in layers}
    counted = {
        name: int(layer.num_batches_tracked) - int(before[name][0])  # pyright: ignore
        for name, layer in layers.items()
        if getattr(layer, "num_batches_tracked", None) is not None
    }
    still = {name: _takes_no_gradient(layer) for name, layer in layers.items()}
    return Replay(calls, counted, moved, still)


def _state(layer: nn.Module) -> list[Tensor]:
    counter = getattr(layer, "num_batches_tracked", None)
    buffers = [buffer for name, buffer in layer.named_buffers() if not name.endswith("num_batches_tracked")]
    return [buffer.clone() for buffer in ([] if counter is None else [counter]) + buffers]


def _takes_no_gradient(layer: nn.Module) -> bool:
    parameters = [*layer.parameters()]
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def _calls(network: nn.Module, layers: dict[str, nn.Module], batch: Batch, measure: Measure) -> dict[str, int]:
    """How often a forward pass runs each layer."""
    calls = dict.fromkeys(layers, 0)

    def counting(name: str) -> Callable[..., None]:
        def count(*_: object) -> None:
            calls[name] += 1

        return count

    probe = copy.deepcopy(network).eval()
    handles = [probe.get_submodule(name).register_forward_pre_hook(counting(name)) for name in layers]
    with torch.no_grad():
        measure.forward(probe, batch)
    for handle in handles:
        handle.remove()
    return calls
