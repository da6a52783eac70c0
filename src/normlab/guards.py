"""What only the built network can tell, checked before any training: shapes, and values per statistic."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from normlab.modes import evaluating
from normlab.norms.declaration import declaration


def check_forward(network: nn.Module, input_shape: Sequence[int], out_features: int) -> dict[str, Tensor]:
    """Sends two samples of zeros through; returns the inputs of the norm layers by name.

    Raises ValueError where the network cannot take the shape or gives another width. Modes, statistics and random
    numbers stay as they are.
    """
    seen: dict[str, Tensor] = {}

    def watch(name: str):
        return lambda module, args: seen.setdefault(name, args[0])

    hooks = [m.register_forward_pre_hook(watch(n)) for n, m in network.named_modules() if declaration(m)]
    try:
        with evaluating(network), torch.no_grad():
            output = network(torch.zeros(2, *input_shape))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise ValueError(f"the network cannot take samples of shape {tuple(input_shape)}: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
    if tuple(output.shape) != (2, out_features):
        raise ValueError(f"the network gives {tuple(output.shape)} for two samples; the data needs (2, {out_features})")
    return seen


def check_batches(network: nn.Module, norm_inputs: dict[str, Tensor], sizes: Sequence[int]) -> None:
    """Raises ValueError where a training batch of one of these sizes is too small for a norm layer."""
    for name, x in norm_inputs.items():
        layer = network.get_submodule(name)
        found = declaration(layer)
        assert found is not None
        for size in sizes:
            values = found.values((size, *x.shape[1:]))
            if layer.training and size < found.samples:
                raise ValueError(
                    f"{_batch(size, sizes)}, and {name} needs at least {found.samples}: {_remedy(size, sizes)}"
                )
            if layer.training and values is not None and values < 2:
                if not found.batch_stats:
                    raise ValueError(
                        f"{name} takes its statistics over a single value of each sample; choose another norm"
                    )
                raise ValueError(
                    f"{_batch(size, sizes)}, which leaves {name} one value per channel: {_remedy(size, sizes)}"
                )


def batch_sizes(loader: object) -> list[int]:
    """The sizes of batches that a loader yields: the usual one, and the last one's; empty where it does not tell."""
    size, dataset = getattr(loader, "batch_size", None), getattr(loader, "dataset", None)
    if size is None or not hasattr(dataset, "__len__"):
        return []
    samples, drop_last = len(dataset), getattr(loader, "drop_last", False)  # pyright: ignore[reportArgumentType]
    rest = samples % size
    return ([size] if samples >= size else []) + ([rest] if rest and not drop_last else [])


def _batch(size: int, sizes: Sequence[int]) -> str:
    which = (
        "the last training batch holds" if size < max(sizes) else f"data.batch_size={size} makes training batches of"
    )
    return f"{which} {size} sample{'s' if size > 1 else ''}"


def _remedy(size: int, sizes: Sequence[int]) -> str:
    if size < max(sizes):
        return f"set data.drop_last=true, or another data.batch_size than {max(sizes)}"
    return "use a larger one, or norm=group or norm=layer"
