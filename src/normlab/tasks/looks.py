"""Values on their way from the device: the processor looks at them a few batches later, and waits for none."""

from collections import deque
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Look = Callable[[list[float]], None]

# How many batches later, by the kind of device: enough that a GPU never waits, and few enough to keep. Elsewhere a look
# costs nothing and is taken at once. Tests give the CPU a lag.
LAGS = {"cuda": 4}


def lag(device: torch.device) -> int:
    """After how many further batches a value of a device is looked at."""
    return LAGS.get(device.type, 0)


class Sent:
    """A tensor that is copied to the processor's memory while the device works on."""

    def __init__(self, values: Tensor):
        self.values = values.detach().to("cpu", non_blocking=values.is_cuda)
        self.copied = torch.cuda.Event() if values.is_cuda else None
        if self.copied is not None:
            self.copied.record(torch.cuda.current_stream(values.device))

    def arrived(self) -> Tensor:
        """The copy, which is waited for."""
        if self.copied is not None:
            self.copied.synchronize()
        return self.values

    def numbers(self) -> list[float]:
        """The values (n,) as numbers."""
        return self.arrived().tolist()


def on_host(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Single numbers in the processor's memory, brought there by one copy for all."""
    kind = torch.float32
    for value in values.values():
        kind = torch.promote_types(kind, value.dtype)
    copied = Sent(torch.stack([value.detach().reshape(()).to(kind) for value in values.values()])).arrived()
    return {name: each.to(value.dtype) for (name, value), each in zip(values.items(), copied, strict=True)}


class Looks:
    """Looks that are still to be taken, in the order of their values; each may raise an error."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Sent, Look]] = deque()

    def add(self, values: Tensor, look: Look) -> None:
        """Hands `values` (n,) to `look` when so many further ones were added as their device has a lag."""
        self.waiting.append((Sent(values), look))
        while len(self.waiting) > lag(values.device):
            self._next()

    def settle(self) -> None:
        """Takes all looks that are left."""
        while self.waiting:
            self._next()

    def _next(self) -> None:
        sent, look = self.waiting.popleft()
        try:
            look(sent.numbers())
        except BaseException:
            self.waiting.clear()  # what came after the error is of no interest, and would hide it
            raise
