"""What only the built network can tell, checked before any training: shapes, and values per statistic."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from normlab.modes import evaluating
from normlab.norms.declaration import Declaration, declaration


def check_forward(network: nn.Module, input_shape: Sequence[int], out_features: int) -> dict[str, Tensor]:
    """Sends two samples of zeros through; returns the inputs of the norm layers by name.

    Raises ValueError where the network cannot take the shape or gives another width, and where a layer has a single
    value to take a statistic over. Modes, statistics and random numbers stay as they are.
    """
    layers = {name: module for name, module in network.named_modules() if declaration(module)}
    output, seen = probe(network, torch.zeros(2, *input_shape), layers)
    _check_single_values(layers, seen)
    if tuple(output.shape) != (2, out_features):
        raise ValueError(f"the network gives {tuple(output.shape)} for two samples; the data needs (2, {out_features})")
    return seen


def probe(network: nn.Module, sample: Tensor, layers: Mapping[str, nn.Module]) -> tuple[Tensor, dict[str, Tensor]]:
    """Sends a batch through in eval mode; returns the output, and the first input of each of the layers by its name.

    Raises ValueError where the network cannot take it. Modes, statistics and random numbers stay as they are.
    """
    seen: dict[str, Tensor] = {}

    def watch(name: str):
        def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:  # anything but None would replace the input
            seen.setdefault(name, args[0])

        return note

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    try:
        with evaluating(network), torch.no_grad():
            return network(sample), seen
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
        _check_single_values(layers, seen)
        shape, reason = tuple(sample.shape[1:]), str(error) or type(error).__name__
        raise ValueError(f"the network cannot take samples of shape {shape}: {reason}") from error
    finally:
        for hook in hooks:
            hook.remove()


def check_evaluation(network: nn.Module, norm_inputs: dict[str, Tensor], sizes: Sequence[int]) -> None:
    """Raises ValueError where a layer that keeps to batch statistics at evaluation gets one value per channel."""
    for name, x in norm_inputs.items():
        found = declaration(network.get_submodule(name))
        assert found is not None
        if found.batch_stats and not found.running_stats:
            for size in sizes:
                values = found.values((size, *x.shape[1:]))
                if size and values is not None and values < 2:
                    raise ValueError(
                        f"an evaluation batch holds {size} sample, and {name} takes statistics of the batch there "
                        "too, over one value per channel: choose another data.batch_size, or a norm with running "
                        "statistics"
                    )


def check_batches(network: nn.Module, norm_inputs: dict[str, Tensor], sizes: Sequence[int], where: str = "") -> None:
    """Raises ValueError where a training batch of one of these sizes is too small for a norm layer."""
    for name, x in norm_inputs.items():
        layer = network.get_submodule(name)
        found = declaration(layer)
        assert found is not None
        if layer.training:
            for size in sizes:
                _check_size(name, found, (size, *x.shape[1:]), max(sizes), where)


def batch_sizes(loader: object, processes: int = 1) -> list[int]:
    """The sizes of batches that a loader yields, of all processes together: the usual one, and the last one's.

    Empty where it does not tell.
    """
    size, dataset = getattr(loader, "batch_size", None), getattr(loader, "dataset", None)
    if size is None or not hasattr(dataset, "__len__"):
        return []
    samples, drop_last = len(dataset), getattr(loader, "drop_last", False)  # pyright: ignore[reportArgumentType]
    size *= processes
    rest = samples % size
    return ([size] if samples >= size else []) + ([rest] if rest and not drop_last else [])


def parts_of(sizes: Sequence[int], processes: int) -> list[int]:
    """The sizes that a process may get of batches of these sizes, the largest first."""
    rounded = {size // processes for size in sizes} | {-(-size // processes) for size in sizes}
    return sorted(rounded, reverse=True)


def _check_single_values(layers: Mapping[str, nn.Module], seen: Mapping[str, Tensor]) -> None:
    """Raises ValueError with the name of a layer that got a single value of each sample, if it was that."""
    for name, x in seen.items():
        found = declaration(layers[name])
        if found is None or found.batch_stats:
            continue
        values = found.values(x.shape)
        if values is not None and values < 2:
            raise ValueError(
                f"{name} takes its statistics over a single value of each sample, its input having the shape "
                f"{tuple(x.shape)}: choose another norm, or larger images"
            )


def _check_size(name: str, found: Declaration, shape: Sequence[int], usual: int, where: str) -> None:
    size, values = shape[0], found.values(shape)
    few = values is not None and values <= found.dimension
    if size < found.samples:
        lacks = f"{name} needs at least {found.samples}"
    elif few:
        enough = f", and it needs more than {found.dimension}" if found.dimension > 1 else ""
        lacks = f"that leaves {name} {'one value' if values == 1 else f'{values} values'} per channel{enough}"
    else:
        return
    samples = f"{size} sample" if size == 1 else f"{size} samples"
    if size < usual:
        remedy = "set data.drop_last=true, or another data.batch_size"
        raise ValueError(f"the last training batch holds {samples}{where}, and {lacks}: {remedy}")
    remedy = "raise data.batch_size, or use norm=group or layer"
    raise ValueError(f"training batches hold {samples}{where}, and {lacks}: {remedy}")
