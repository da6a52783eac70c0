"""What the norm layers of a network do in one forward pass, by hooks that are there in that pass alone."""

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from normlab.folder.recorded import FAINT
from normlab.norms.common.fold import KINDS
from normlab.norms.common.moments import whole_moments
from normlab.norms.common.neighbours import probed
from normlab.norms.common.population import Population, declared_or_batch, population_of
from normlab.norms.common.probe import evaluating
from normlab.norms.common.replace import norm_layers

# Where the classes of activations are: torch's and timm's.
ACTIVATIONS = ("torch.nn.modules.activation", "timm.layers.activations", "timm.layers.activations_me")
# Those among them that do not take each value by itself.
MIXING = (nn.MultiheadAttention, nn.GLU, nn.Softmax, nn.Softmax2d, nn.Softmin, nn.LogSoftmax)
RUNNING = ("running_mean", "running_var")

Moments = tuple[Tensor, Tensor]  # the mean and the biased variance of each channel, (C,) each


@dataclass
class Seen:
    """What was seen of a layer when it ran first.

    running: copies of its running statistics from before it ran. inputs: the values that it got, where it has running
    statistics. output: of what it gives. behind: of what an activation makes of that.
    """

    layer: nn.Module
    running: dict[str, Tensor] = field(default_factory=dict)
    inputs: Population | None = None
    output: Moments | None = None
    behind: Moments | None = None


class Watch:
    """Sees the norm layers of a network, whoever wrote them, while it runs in the context `running`.

    An activation is that of a layer where it is a module, takes what the layer gives as it is, and comes first; or
    where it is within the layer. One that the network calls as a function is not seen. Of a layer that runs several
    times the first is seen. Hooks are not called in compiled code: see `torch.compiler.set_stance`.
    """

    def __init__(self, network: nn.Module):
        self.layers = norm_layers(network)
        known = (each for each in network.modules() if type(each).__module__ in ACTIVATIONS)
        self.activations = [each for each in known if not isinstance(each, MIXING)]
        self.within = {part: name for name, layer in self.layers.items() for part in layer.modules()}
        self.seen: dict[str, Seen] = {}
        # The outputs that an activation may take, by id, each with its version and its layer's name.
        self.outputs: dict[int, tuple[weakref.ref[Tensor], int, str]] = {}
        self.activating: dict[nn.Module, str] = {}  # the layer whose output an activation has in its hands

    @contextmanager
    def running(self) -> Iterator[dict[str, Seen]]:
        """Gives what is seen, by the layer's name; hooks are there until the context ends."""
        self.seen, handles = {}, []
        try:
            for name, layer in self.layers.items():
                handles.append(layer.register_forward_pre_hook(self._enter(name)))
                handles.append(layer.register_forward_hook(self._leave(name)))
            for activation in self.activations:
                handles.append(activation.register_forward_pre_hook(self._enter_activation))
                handles.append(activation.register_forward_hook(self._leave_activation))
            yield self.seen
        finally:
            for handle in handles:
                handle.remove()
            self.outputs.clear()
            self.activating.clear()

    def _enter(self, name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
            if name in self.seen or not (args and _has_values(args[0])):
                return
            seen = self.seen[name] = Seen(layer)
            chosen = getattr(layer, "in_use", layer)  # one of several sets of statistics
            held = {key: chosen._buffers.get(key) for key in RUNNING}
            seen.running = {key: values.clone() for key, values in held.items() if values is not None}
            if seen.running:
                seen.inputs = population_of(chosen)
                seen.inputs.see(args[0])

        return hook

    def _leave(self, name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            self._note_output(name, output)
            declared = declared_or_batch(layer)
            if declared is not None and declared.activation and name in self.seen:
                self.seen[name].behind = self.seen[name].output

        return hook

    def _enter_activation(self, activation: nn.Module, args: tuple[Tensor, ...]) -> None:
        if not args:  # given by its name
            return
        if activation in self.within:
            self._note_output(self.within[activation], args[0])
            self.activating[activation] = self.within[activation]
            return
        given, version, name = self.outputs.get(id(args[0]), (None, 0, ""))
        if given is not None and given() is args[0] and args[0]._version == version:
            self.activating[activation] = name

    def _leave_activation(self, activation: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        seen = self.seen.get(self.activating.pop(activation, ""))
        if seen is not None and seen.behind is None:
            seen.behind = _moments(seen.layer, output)

    def _note_output(self, name: str, output: Tensor) -> None:
        if name in self.seen and self.seen[name].output is None and _has_values(output):
            self.seen[name].output = _moments(self.seen[name].layer, output)
            self.outputs[id(output)] = (weakref.ref(output), output._version, name)


@torch.no_grad()
def measures(seen: Seen) -> dict[str, Tensor]:
    """The numbers of a layer, as columns of `normlab.folder.recorded`; what the layer does not have is left out."""
    numbers: dict[str, Tensor] = {}
    if seen.inputs is not None:
        numbers |= _drift(seen.running, seen.inputs)
    chosen = getattr(seen.layer, "in_use", seen.layer)
    weight, bias = (getattr(chosen, name, None) for name in ("weight", "bias"))
    for name, values in (("gamma", weight), ("beta", bias)):
        if isinstance(values, Tensor) and values.numel():
            numbers |= {name: values.mean(), f"{name}_min": values.min(), f"{name}_max": values.max()}
    if seen.output is None:
        return numbers
    mean, var = seen.output
    numbers["channels"] = mean.new_tensor(len(mean))
    numbers["spread"] = (var.mean() + mean.var(correction=0)).sqrt()
    faint = [weight.abs() < FAINT] if isinstance(weight, Tensor) and weight.shape == mean.shape else []
    if seen.behind is not None:
        mean_behind, var_behind = seen.behind
        dead = (var_behind + mean_behind.square()).sqrt() < FAINT
        faint.append(dead)
        numbers["saturated"] = (~dead & (var_behind.sqrt() < FAINT * var.sqrt())).sum()
    if faint:
        numbers["dead"] = torch.stack(faint).any(0).sum()
    return numbers


def _drift(running: Mapping[str, Tensor], batch: Population) -> dict[str, Tensor]:
    """How far running statistics are from a batch's, over the channels in which the batch varies."""
    varying = batch.variance > 0  # false where there is a single value
    var = batch.variance[varying]
    if not len(var):
        return {}
    numbers: dict[str, Tensor] = {}
    if "running_mean" in running:
        mean = running["running_mean"].to(batch.mean)
        apart = (mean - batch.mean)[varying].abs() / var.sqrt()
        numbers |= {"drift": apart.mean(), "drift_max": apart.max()}
    if "running_var" in running:
        ratio = running["running_var"].to(batch.mean)[varying] / var
        numbers |= {"variance_ratio": ratio.log().mean().exp()}
        numbers |= {"variance_ratio_min": ratio.min(), "variance_ratio_max": ratio.max()}
    return numbers


def scale_free(network: nn.Module, layers: Mapping[str, nn.Module], sample: Tensor) -> dict[str, list[Tensor]]:
    """The parameters right in front of each of the layers, by its name, whose scale it takes out of its input.

    That is the weight of a convolution or linear layer whose output nothing else reads, with its bias where the layer
    does not take a channel's mean off. sample: a batch for the network. Raises ValueError where the network's way
    depends on the values of its input.
    """
    linear = [module for module in network.modules() if isinstance(module, KINDS)]
    with evaluating(network):
        pairs = probed(network, [*layers.values(), *linear], sample).pairs
    parameters: dict[str, list[Tensor]] = {}
    for name, layer in layers.items():
        before = pairs.get(layer)
        if isinstance(before, KINDS) and _normalises(layer):
            bias = [] if before.bias is None or _takes_off_means(layer) else [before.bias]
            parameters[name] = [before.weight, *bias]
    return parameters


def _normalises(layer: nn.Module) -> bool:
    """Whether a layer's statistics are those of what it gets in training."""
    declared = declared_or_batch(layer)
    if declared is None:
        return "running_mean" not in layer._buffers
    return bool(declared.axes) and (layer.training or not declared.running_stats)


def _takes_off_means(layer: nn.Module) -> bool:
    declared = declared_or_batch(layer)
    return declared is not None and declared.centred and "channel" not in declared.axes


def _has_values(x: object) -> bool:
    return isinstance(x, Tensor) and x.ndim > 1 and x.numel() > 0


@torch.no_grad()
def _moments(layer: nn.Module, x: Tensor) -> Moments:
    """Mean and biased variance (C,) of what a layer gives, or of what became of it."""
    x = x.detach() if channel_axis(layer, x) == 1 else x.detach().flatten(0, -2)
    _, mean, var = whole_moments(x)  # each (1, C)
    return mean[0], var[0]


def channel_axis(layer: nn.Module, x: Tensor) -> int:
    """The axis of what a norm layer takes or gives that counts its channels."""
    declared = declared_or_batch(layer)
    if declared is not None:
        return x.ndim - 1 if declared.channels_last else 1
    weight = getattr(layer, "weight", None)  # of another library's layer, such as timm's LayerNorm2d
    last = isinstance(weight, Tensor) and weight.ndim == 1 and x.shape[1] != len(weight)
    return x.ndim - 1 if last else 1
