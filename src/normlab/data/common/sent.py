"""Samples that stay in the host's memory and are sent to the training GPU batch by batch."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

AHEAD = 2  # how many batches are on their way while one is worked on


class Sent:
    """A `Source` of a tensor's samples on `device`.

    A thread cuts each batch into pinned memory and copies it while the GPU computes. On the CPU, where this is tested,
    nothing is copied.
    """

    def __init__(self, x: Tensor, device: torch.device):
        self.x, self.device = x, device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Tensor) -> "Sent":
        return Sent(self.x[index], self.device)

    def batches(self, steps: Sequence[Tensor]) -> Iterator[Tensor]:
        on_their_way: deque[Future[Tensor]] = deque()
        with ThreadPoolExecutor(1) as thread:
            for step in steps:
                on_their_way.append(thread.submit(self._send, step))
                if len(on_their_way) > AHEAD:
                    yield self._arrived(on_their_way.popleft())
            while on_their_way:
                yield self._arrived(on_their_way.popleft())

    def _send(self, step: Tensor) -> Tensor:
        shape = len(step), *self.x.shape[1:]
        with torch.cuda.stream(self.stream):  # also sets the device: else pinning would take memory of the first GPU
            cut = torch.empty(shape, dtype=self.x.dtype, pin_memory=self.stream is not None)
            torch.index_select(self.x, 0, step, out=cut)
            there = cut.to(self.device, non_blocking=True)
        if self.stream is not None:
            self.stream.synchronize()  # only this thread waits
        return there

    def _arrived(self, batch: "Future[Tensor]") -> Tensor:
        there = batch.result()
        if self.stream is not None:
            there.record_stream(torch.cuda.current_stream(self.device))
        return there
