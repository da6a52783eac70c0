"""What the layers of a network hold: by the network itself, or by the names in its checkpoint."""

from collections.abc import Mapping

from torch import Tensor, nn

from normlab.folder.recorded import FAINT
from normlab.norms.common.declaration import declaration
from normlab.report.single.answers import QUANTITIES, SCALE, VARIANCE, NormLayer, Spread, Weights

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def of_network(network: nn.Module) -> tuple[list[NormLayer], list[Weights]]:
    """The norm layers of a network with its weights, and its parameters."""
    layers = [norm_layer(name, kind, _held(module), _eps(module)) for name, (kind, module) in _norms(network).items()]
    return layers, [_weights(name, parameter) for name, parameter in network.named_parameters()]


def of_checkpoint(state: Mapping[str, Tensor]) -> tuple[list[NormLayer], list[Weights]]:
    """As `of_network`, for a network that cannot be built: layers are told by their running statistics."""
    state = {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}
    names = [name.rpartition(".")[0] for name in state if name.endswith(".running_var")]
    layers = [
        norm_layer(name, "with running statistics", {key: state.get(f"{name}.{key}") for key in QUANTITIES}, None)
        for name in names
    ]
    parameters = {name: value for name, value in state.items() if name.rpartition(".")[2] not in STATISTICS}
    return layers, [_weights(name, value) for name, value in parameters.items()]


def norm_layer(name: str, kind: str, held: Mapping[str, Tensor | None], eps: float | None) -> NormLayer:
    """held: the tensors of the layer, by the names that torch gives them."""
    there = {QUANTITIES[key]: value.detach().cpu().double().numpy() for key, value in held.items() if value is not None}
    scale, variance = there.get(SCALE), there.get(VARIANCE)
    return NormLayer(
        name=name,
        kind=kind,
        channels=max((value.size for value in there.values()), default=0),
        eps=eps,
        quantities={quantity: Spread.of(value) for quantity, value in there.items()},
        faint=None if scale is None else int((abs(scale) < FAINT).sum()),
        constant=None if variance is None or eps is None else int((variance <= eps).sum()),
    )


def _norms(network: nn.Module) -> dict[str, tuple[str, nn.Module]]:
    """The kind of each norm layer and the module that holds its values, by the names of these modules.

    A layer may have several, as one for each domain.
    """
    return {
        f"{name}.{inner}".strip("."): (type(layer).__name__, module)
        for name, layer in network.named_modules()
        if declaration(layer) is not None
        for inner, module in layer.named_modules()
        if any(value is not None for value in _held(module).values())
    }


def _held(module: nn.Module) -> dict[str, Tensor | None]:
    own = dict([*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)])
    return {key: own.get(key) for key in QUANTITIES}


def _eps(module: nn.Module) -> float | None:
    """The layer's ε where it is added to the running variance."""
    eps = getattr(module, "eps", None)
    return eps if isinstance(eps, float) else None


def _weights(name: str, value: Tensor) -> Weights:
    return Weights(name, tuple(value.shape), value.numel())
