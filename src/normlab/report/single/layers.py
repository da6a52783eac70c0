"""What the layers of a network hold: by the network itself, or by the names in its checkpoint."""

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from normlab.norms.common.declaration import declaration
from normlab.report.single.answers import FAINT, QUANTITIES, SCALE, VARIANCE, NormLayer, Spread, Weights

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def of_network(network: nn.Module) -> tuple[list[NormLayer], list[Weights]]:
    """The norm layers of a network with its weights, and its parameters."""
    layers = [
        norm_layer(name, type(module).__name__, _held(module), getattr(module, "eps", None))
        for name, module in network.named_modules()
        if declaration(module) is not None and any(True for _ in module.state_dict())
    ]
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


def _held(module: nn.Module) -> dict[str, Tensor | None]:
    own: Iterable[tuple[str, Tensor]] = [*module.named_parameters(), *module.named_buffers()]
    named = {name.rpartition(".")[2]: value for name, value in own}
    return {key: named.get(key) for key in QUANTITIES}


def _weights(name: str, value: Tensor) -> Weights:
    return Weights(name, tuple(value.shape), value.numel())
