"""Checks that need the built network, before any training: shapes, and the number of values per statistic."""

from collections.abc import Sequence

from torch import Tensor, nn

from normlab.norms.common.declaration import Declaration, declaration


def check_evaluation(network: nn.Module, norm_inputs: dict[str, Tensor], sizes: Sequence[int]) -> None:
    """Raises ValueError where a layer that keeps to batch statistics at evaluation gets one value per channel."""
    for name, x in norm_inputs.items():
        declared = declaration(network.get_submodule(name))
        assert declared is not None
        if declared.batch_stats and not declared.running_stats:
            for size in sizes:
                values = declared.values((size, *x.shape[1:]))
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
        declared = declaration(layer)
        assert declared is not None
        if layer.training:
            for size in sizes:
                _check_size(name, declared, (size, *x.shape[1:]), max(sizes), where)


def batch_sizes(loader: object, processes: int = 1) -> list[int]:
    """The sizes of the joint batches of all processes that a loader yields: the usual size, and the last batch's.

    Empty where the loader does not tell them.
    """
    size, dataset = getattr(loader, "batch_size", None), getattr(loader, "dataset", None)
    if size is None or not hasattr(dataset, "__len__"):
        return []
    samples, drop_last = len(dataset), getattr(loader, "drop_last", False)  # pyright: ignore[reportArgumentType]
    size *= processes
    rest = samples % size
    return ([size] if samples >= size else []) + ([rest] if rest and not drop_last else [])


def shares(sizes: Sequence[int], processes: int) -> list[int]:
    """The sizes of the shares that one process may get of batches of these sizes, the largest first."""
    rounded = {size // processes for size in sizes} | {-(-size // processes) for size in sizes}
    return sorted(rounded, reverse=True)


def _check_size(name: str, declared: Declaration, shape: Sequence[int], usual: int, where: str) -> None:
    size, values = shape[0], declared.values(shape)
    few = values is not None and values <= declared.dimension
    if size < declared.samples:
        lacks = f"{name} needs at least {declared.samples}"
    elif few:
        enough = f", and it needs more than {declared.dimension}" if declared.dimension > 1 else ""
        lacks = f"that leaves {name} {'one value' if values == 1 else f'{values} values'} per channel{enough}"
    else:
        return
    samples = f"{size} sample" if size == 1 else f"{size} samples"
    if size < usual:
        remedy = "set data.drop_last=true, or another data.batch_size"
        raise ValueError(f"the last training batch holds {samples}{where}, and {lacks}: {remedy}")
    remedy = "raise data.batch_size, or use norm=group or layer"
    raise ValueError(f"training batches hold {samples}{where}, and {lacks}: {remedy}")
