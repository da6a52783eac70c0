"""Which layer of a network stands right before which: seen by running or tracing it, never guessed from its attributes.

Two layers are neighbours where the second takes what the first gives, nobody else reads it, and both run once.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

# Attributes and methods of a tensor that tell nothing of its values.
LOOKS = ("shape", "ndim", "dtype", "device", "is_cuda", "size", "dim", "numel", "__len__", "is_floating_point")
# Methods that hand a value to Python, where a network may take another way because of it.
VALUES = ("__bool__", "__int__", "__float__", "__index__", "item", "tolist")


@dataclass
class Neighbours:
    """What is known of some of a network's layers.

    pairs: the layer before, by the layer behind it. axes: how many axes a layer's input has, where that was seen.
    read: the ids of tensors that the network reads itself, beside the layers that have them.
    """

    pairs: dict[nn.Module, nn.Module] = field(default_factory=dict)
    axes: dict[nn.Module, int] = field(default_factory=dict)
    read: set[int] = field(default_factory=set)

    def behind(self, layer: nn.Module) -> nn.Module | None:
        return next((second for second, first in self.pairs.items() if first is layer), None)


def traced(network: nn.Module, layers: Collection[nn.Module]) -> Neighbours:
    """The neighbours among `layers`, as torch.fx traces the network, which needs no sample.

    Raises ValueError where fx cannot follow it, as where its way depends on its input.
    """
    try:
        graph = _Tracer(layers).trace(network)
    except Exception as error:  # fx runs the network's own code on stand-ins, which may fail in any way
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ValueError(
            f"torch.fx cannot follow this network ({reason}): give a batch to send through it, fold(network, sample)"
        ) from error
    found = Neighbours()
    calls = {node: network.get_submodule(str(node.target)) for node in graph.nodes if node.op == "call_module"}
    times = Counter(calls.values())
    for node in graph.nodes:
        if node.op == "get_attr":
            path, _, name = str(node.target).rpartition(".")
            found.read.add(id(getattr(network.get_submodule(path), name)))
    for node, layer in calls.items():
        (before,) = node.args if len(node.args) == 1 and not node.kwargs else (None,)
        if not isinstance(before, fx.Node) or before not in calls or layer not in layers:
            continue
        readers = [user for user in before.users if not _looks(user)]
        if readers == [node] and times[layer] == times[calls[before]] == 1 and calls[before] in layers:
            found.pairs[layer] = calls[before]
    return found


class _Tracer(fx.Tracer):
    """Keeps certain layers as one node each, beside torch's own."""

    def __init__(self, layers: Collection[nn.Module]):
        super().__init__()
        self.layers = layers

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m in self.layers or super().is_leaf_module(m, module_qualified_name)


def _looks(user: fx.Node) -> bool:
    """Whether a node reads no more of a tensor than its shape and the like."""
    if user.op == "call_function" and user.target is getattr:
        return user.args[1] in LOOKS
    return user.op == "call_method" and user.target in LOOKS


def probed(network: nn.Module, layers: Collection[nn.Module], sample: Tensor) -> Neighbours:
    """The neighbours among `layers`, as they are when the network, in evaluation mode, is given a batch.

    Raises ValueError where its way may depend on the values of the batch.
    """
    watch = _Watch()
    with torch.no_grad(), watch.on(layers), watch:
        output = network(sample)
    for tensor in filter(_is_tensor, tree_leaves(output)):
        watch.note(tensor, None)
    found = Neighbours(axes=watch.axes, read={*watch.readers})
    for key, layer in watch.made.items():
        match watch.readers.get(key, []):
            case [nn.Module() as reader] if watch.calls[reader] == watch.calls[layer] == 1:
                found.pairs[reader] = layer
    return found


class _Watch(TorchFunctionMode):
    """Notes who reads which tensor while a network runs: one of the layers, or anything else, which counts as None."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: dict[int, list[nn.Module | None]] = {}
        self.made: dict[int, nn.Module] = {}  # by which layer
        self.calls: Counter[nn.Module] = Counter()
        self.axes: dict[nn.Module, int] = {}
        self.held: list[Tensor] = []  # a tensor that is let go could hand its id to the next
        self.inside = 0  # how many of the layers are running now

    @contextmanager
    def on(self, layers: Collection[nn.Module]) -> Iterator[None]:
        hooks = [layer.register_forward_pre_hook(self._enter, with_kwargs=True) for layer in layers]
        hooks += [layer.register_forward_hook(self._leave) for layer in layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def note(self, tensor: Tensor, reader: nn.Module | None) -> None:
        self.held.append(tensor)
        self.readers.setdefault(id(tensor), []).append(reader)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.inside:
            name = getattr(func, "__name__", "")
            name = getattr(getattr(func, "__self__", None), "__name__", name) if name == "__get__" else name
            if name in VALUES:
                raise ValueError(
                    f"this network reads values of its batch ({name}), so that its way may be another for the next "
                    "one: which layers stand beside each other cannot be known"
                )
            if name not in LOOKS:
                for tensor in filter(_is_tensor, tree_leaves((args, kwargs))):
                    self.note(tensor, None)
        return func(*args, **kwargs)

    def _enter(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.calls[layer] += 1
        tensors = [*filter(_is_tensor, tree_leaves((args, kwargs)))]
        plain = len(args) == 1 and not kwargs
        for tensor in tensors if not self.inside else ():
            self.note(tensor, layer if plain else None)
        if tensors:
            self.axes[layer] = tensors[0].ndim
        self.inside += 1

    def _leave(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.inside -= 1
        if isinstance(output, Tensor) and not self.inside:
            self.held.append(output)
            self.made[id(output)] = layer


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)
