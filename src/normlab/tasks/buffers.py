"""A network's buffers as they were before a forward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from operator import is_not
from typing import Any

import torch
from torch import Tensor, nn


class Buffers:
    """Keeps a network's buffers, such as running statistics, so that they can be put back."""

    def __init__(self, network: nn.Module):
        held = ((module._buffers, name) for module in network.modules() for name in module._buffers)
        # For each buffer, its module's buffers and its name.
        self.slots: list[tuple[dict[str, Any], str]] = [(of, name) for of, name in held if of[name] is not None]
        self.tensors: list[Tensor] = []
        self.copies: list[Tensor] = []

    def remember(self) -> None:
        """Copies them as they are now."""
        tensors = [held[name] for held, name in self.slots]
        if len(tensors) != len(self.tensors) or any(map(is_not, tensors, self.tensors)):
            self.tensors, self.copies = tensors, [tensor.detach().clone() for tensor in tensors]
        elif tensors:
            torch._foreach_copy_(self.copies, tensors)  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def put_back(self) -> None:
        """Puts back what was remembered."""
        for (held, name), tensor, copy in zip(self.slots, self.tensors, self.copies, strict=True):
            tensor.copy_(copy)
            held[name] = tensor  # a layer may have assigned another tensor

    @torch.no_grad()
    def put_back_unless(self, good: Tensor) -> None:
        """Puts back what was remembered where `good`, a single truth value on the device, is false."""
        for (held, name), tensor, copy in zip(self.slots, self.tensors, self.copies, strict=True):
            torch.where(good, held[name], copy, out=tensor)
            held[name] = tensor

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Puts back, after the body of the context, what they were before it; what was remembered stays."""
        tensors, copies = self.tensors, self.copies
        self.tensors, self.copies = [], []
        self.remember()
        try:
            yield
        finally:
            self.put_back()
            self.tensors, self.copies = tensors, copies
