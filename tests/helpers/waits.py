"""Counts what a GPU would make the processor wait for, on a machine without one."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

aten = torch.ops.aten
# Operations that hand a value of the device to the processor, or that need one to know the shape of what they give.
READING = (aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.bincount, aten.is_nonzero, aten.equal)
READING += (aten._unique2, aten.unique_dim, aten.unique_consecutive)
INDEXING = (aten.index, aten.index_put, aten.index_put_)
# Calls that copy a tensor to the processor; on the CPU these run no operation.
COPYING = {f"torch.Tensor.{name}" for name in ("tolist", "numpy", "cpu", "__array__")}


class Reads:
    """Counts reads of what lies on an imagined device, by operation, while the body of the context runs.

    What is `placed` lies there, and whatever is computed of it; a tensor that was made of numbers does not, until it
    meets one that does. `fetched` gives a copy in the processor's memory, which may be read.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.there = WeakIdKeyDictionary()
        self.modes = _Operations(self), _Calls(self)

    def __enter__(self) -> "Reads":
        for mode in self.modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self.modes):
            mode.__exit__(*error)

    def place(self, tree: Any) -> None:
        for tensor in tensors_of(tree):
            self.there[tensor] = True

    def fetched(self, tensor: Tensor) -> Tensor:
        copy = tensor.clone()
        self.there.pop(copy, None)
        return copy

    def is_there(self, tree: Any) -> bool:
        return any(tensor in self.there for tensor in tensors_of(tree))


class _Operations(TorchDispatchMode):
    def __init__(self, reads: Reads):
        super().__init__()
        self.reads = reads

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.reads.is_there((args, kwargs)):
            packet = func.overloadpacket
            indices = tensors_of(args[1]) if packet in INDEXING else ()
            if packet in READING or any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                self.reads.counts[str(packet)] += 1
            self.reads.place(result)
        return result


class _Calls(TorchFunctionMode):
    def __init__(self, reads: Reads):
        super().__init__()
        self.reads = reads

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = resolve_name(func) or ""
        if name in COPYING and self.reads.is_there(args):
            self.reads.counts[name] += 1
        return func(*args, **(kwargs or {}))


def tensors_of(tree: Any) -> Iterable[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
