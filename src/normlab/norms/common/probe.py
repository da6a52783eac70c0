"""Sends samples through a network in eval mode, to see the inputs of its norm layers, and leaves no trace."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from normlab.errors import is_library, was_refused
from normlab.norms.common.declaration import declaration


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
        def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:  # a hook that returned something would change x
            seen.setdefault(name, args[0])

        return note

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    try:
        with evaluating(network), torch.no_grad():
            return network(sample), seen
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
        _check_single_values(layers, seen)
        if not was_refused(error) and any(map(_is_persons, network.modules())):
            error.add_note(
                f"This came of samples of shape {tuple(sample.shape[1:])}, sent through before the training."
            )
            raise
        shape, reason = tuple(sample.shape[1:]), str(error) or type(error).__name__
        raise ValueError(f"the network cannot take samples of shape {shape}: {reason}") from error
    finally:
        for hook in hooks:
            hook.remove()


def _is_persons(module: nn.Module) -> bool:
    """Whether a module is of a person's own class, whose mistakes need their traceback."""
    return not is_library(type(module)) and not type(module).__module__.startswith("normlab.")


def _check_single_values(layers: Mapping[str, nn.Module], seen: Mapping[str, Tensor]) -> None:
    """Raises ValueError with the name of a layer that got a single value of each sample, if it was that."""
    for name, x in seen.items():
        declared = declaration(layers[name])
        if declared is None or declared.batch_stats:
            continue
        values = declared.values(x.shape)
        if values is not None and values < 2:
            raise ValueError(
                f"{name} takes its statistics over a single value of each sample, its input having the shape "
                f"{tuple(x.shape)}: choose another norm, or larger images"
            )


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Puts `network` in eval mode, and afterwards each of its modules back in the mode that it had."""
    before = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training
