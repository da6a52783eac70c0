"""Running statistics estimated anew from many batches, for the weights that a network has now.

normlab.estimate_statistics(network, loader)
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from normlab.distributed import collectives
from normlab.norms.common.population import (
    Population,
    check,
    check_finite,
    check_variance,
    declared_or_batch,
    population_of,
    read_together,
    take_over,
)
from normlab.norms.common.probe import evaluating

Forward = Callable[[nn.Module, Any], Any]


class _EnoughError(Exception):
    """Ends a forward pass behind the layer that it was for."""


def first_of_batch(network: nn.Module, batch: Any) -> None:
    """Sends a batch x, or the first entry of a batch (x, …), through a network on the network's device."""
    x = batch[0] if isinstance(batch, list | tuple) else batch
    network(x.to(next(network.parameters()).device))


def estimate_statistics(
    network: nn.Module,
    loader: Iterable[Any],
    samples: int | None = None,
    in_order: bool = False,
    forward: Forward = first_of_batch,
    layers: Collection[str] | None = None,
) -> list[str]:
    """Estimates the running statistics of every layer of `network` that keeps some, in place; returns their names.

    loader: batches. samples: after how many of the first layer's samples, over all processes, a pass over the loader
    ends; None: at its end. forward: sends a batch through the network. layers: the names of those to estimate; None:
    all but those that `normlab.freeze` has frozen.

    Each layer gets the mean and the unbiased variance of all its inputs, exactly and whatever the batches' sizes: of
    normlab's layers, torch's, and other subclasses of torch's batch norm. While that goes on, a layer normalises each
    batch by the batch's own statistics, as in training (Wu & Johnson, Rethinking "Batch" in BatchNorm, 2021,
    arXiv:2105.07576). With `in_order`, layers are estimated one after the other, each for the inputs that it gets in
    evaluation, where the layers before it use what was estimated for them; this takes a pass for each layer. The
    network is in eval mode throughout, and modes, weights, counters of batches and gradients stay as they are. Over
    several processes every one of them must call it, with its own batches.

    torch.optim.swa_utils.update_bn looks for torch's own class, and moves nothing in others.

    Raises ValueError, with nothing changed, where no layer keeps running statistics, where all that do are frozen,
    where the loader has no batch, or a batch no variance, and for inputs with NaN or inf.
    """
    chosen = _chosen(network, layers)
    estimated = []
    with _restoring(chosen.values()), evaluating(network), torch.no_grad(), _eager():
        for of_pass in _passes(network, chosen, loader, samples, in_order, forward):
            for name, _, population in of_pass:
                population.join_ranks(name)
            facts = read_together([population.facts() for _, _, population in of_pass])
            for (name, layer, population), (count, finite) in zip(of_pass, facts, strict=True):
                if count:
                    check(name, population, count, bool(finite))
                    take_over(layer, population)
                    estimated.append(name)
    if not estimated:
        raise ValueError("the loader has no batch to estimate statistics from")
    return list(dict.fromkeys(estimated))


def keeps_statistics(layer: nn.Module) -> bool:
    """Whether training moves running statistics of a layer, by which it evaluates."""
    declared = declared_or_batch(layer)
    return declared is not None and declared.running_stats and bool(declared.axes)


def layers_with_statistics(network: nn.Module) -> dict[str, nn.Module]:
    """The layers of a network that keep running statistics, by name."""
    return {name: layer for name, layer in network.named_modules() if keeps_statistics(layer)}


def _chosen(network: nn.Module, names: Collection[str] | None) -> dict[str, nn.Module]:
    keeping = layers_with_statistics(network)
    if not keeping:
        raise ValueError(f"{type(network).__name__} has no norm layer with running statistics to estimate")
    if names is not None:
        return {name: layer for name, layer in keeping.items() if name in names}
    moving = {name: layer for name, layer in keeping.items() if "train" not in vars(layer)}  # see tasks/freezing.py
    if not moving:
        raise ValueError(f"all norm layers with running statistics are frozen ({', '.join(keeping)}): thaw them first")
    return moving


def take_batch(layer: nn.Module, x: Tensor, name: str) -> None:
    """Makes the statistics of `x` those that a layer, or one of its sets of statistics, evaluates by.

    name: the layer's, for messages. Raises ValueError where `x` has no variance, and for NaN and inf.
    """
    if x.numel():
        population, title, finite = _of_batch(layer, x, name)
        check_finite(title, bool(finite))
        take_over(layer, population, of_batch=True)


def _of_batch(layer: nn.Module, x: Tensor, name: str) -> tuple[Population, str, Tensor]:
    """The population of a batch, what to call it, and whether it is finite, unread. Raises ValueError as `check`."""
    population, title = population_of(layer), f"{name}, in a batch of shape {tuple(x.shape)}"
    population.see(x)
    check_variance(title, population, x.numel() // x.shape[1])
    return population, title, population.facts()[1]


def _passes(
    network: nn.Module,
    layers: dict[str, nn.Module],
    loader: Iterable[Any],
    samples: int | None,
    in_order: bool,
    forward: Forward,
) -> Iterator[list[tuple[str, nn.Module, Population]]]:
    """For each pass its layers, or their sets of statistics, with the populations of their inputs.

    In order, a layer's statistics are to be taken over before the next pass is asked for.
    """
    if not in_order:
        yield _Pass(layers).over(network, loader, samples, forward)
        return
    if iter(loader) is loader:
        raise ValueError("in_order takes a pass for each layer: give a loader that can be passed more than once")
    for name, calls in _calls(network, layers, loader, forward).items():
        yield _Pass({name: layers[name]}, calls).over(network, loader, samples, forward)


def _calls(network: nn.Module, layers: dict[str, nn.Module], loader: Iterable[Any], forward: Forward) -> dict[str, int]:
    """How often each layer runs in a forward pass, in the order in which they first run."""
    calls: dict[str, int] = {}

    def counting(name: str) -> Callable[..., None]:
        return lambda *_: calls.update({name: calls.get(name, 0) + 1})

    with _hooked(layers, counting):
        for batch in islice(loader, 1):
            forward(network, batch)
    return calls


class _Pass:
    """One pass over a loader, which gathers the inputs of some layers.

    calls: for a single layer, how often it runs in a forward pass, which is not needed beyond that; None: the layers
    normalise each batch by its own statistics.
    """

    def __init__(self, layers: dict[str, nn.Module], calls: int | None = None):
        self.layers, self.calls = layers, calls
        self.populations = {
            each: (name, population_of(each)) for name, layer in layers.items() for each in _sets(layer)
        }
        self.left = 0  # calls that are still to come in this batch
        self.finite: list[tuple[str, Tensor]] = []  # of each layer's batches, unread

    def over(
        self, network: nn.Module, loader: Iterable[Any], samples: int | None, forward: Forward
    ) -> list[tuple[str, nn.Module, Population]]:
        """Sends the batches through. Raises ValueError for inputs with NaN or inf."""
        limit = math.inf
        with _hooked(self.layers, self._watching):
            for number, batch in enumerate(loader, start=1):
                self.left = self.calls or 0
                with suppress(_EnoughError):
                    forward(network, batch)
                if number == 1 and samples is not None:  # all processes then take the same number of batches
                    limit = math.ceil(samples / max(sum(collectives.of_all(_size(batch))), 1))
                if number >= limit:
                    break
        self._check_finite()
        return [(name, layer, population) for layer, (name, population) in self.populations.items()]

    def _check_finite(self) -> None:
        flags = read_together([finite for _, finite in self.finite])
        for (title, _), finite in zip(self.finite, flags, strict=True):
            check_finite(title, bool(finite))

    def _watching(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def see(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            layer = getattr(module, "in_use", module)
            self.populations[layer][1].see(args[0])
            if self.calls is None and args[0].numel():
                population, title, finite = _of_batch(layer, args[0], name)
                self.finite.append((title, finite))
                take_over(layer, population, of_batch=True)
            self.left -= 1
            if self.calls is not None and not self.left:
                raise _EnoughError

        return see


def _sets(layer: nn.Module) -> Sequence[nn.Module]:
    """The sets of statistics that a layer holds; the one `in_use` takes the next batch."""
    return getattr(layer, "sets", [layer])


def _size(batch: Any) -> int:
    """How many samples a batch holds."""
    return (
        len(batch)
        if isinstance(batch, Tensor)
        else _size(next(iter(batch.values() if isinstance(batch, dict) else batch)))
    )


@contextmanager
def _hooked(layers: Mapping[str, nn.Module], hook: Callable[[str], Callable[..., None]]) -> Iterator[None]:
    """Calls `hook(name)` with each of the layers and its arguments before it runs."""
    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _restoring(layers: Collection[nn.Module]) -> Iterator[None]:
    """Puts the layers' buffers back where an error ends the context."""
    before = [(buffer, buffer.clone()) for layer in layers for buffer in layer.buffers()]
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for buffer, values in before:
                buffer.copy_(values)
        raise


def _eager() -> Any:
    """Runs what is compiled as it was written, since compiled code does not call hooks that come later."""
    return torch.compiler.set_stance("force_eager")
