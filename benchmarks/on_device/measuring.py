"""Time and memory on a device, and when to stop measuring."""

import math
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Place:
    """Where is measured, how shortly, and until when (seconds, as time.monotonic gives them)."""

    device: torch.device
    quick: bool = False
    until: float = math.inf

    @property
    def over(self) -> bool:
        """Whether the time is up; what was not measured by then is left out."""
        return time.monotonic() > self.until

    def wait(self) -> None:
        """Waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, call: Callable[[], object], calls: int) -> float:
        """Of one of so many calls in a row, which the device may work on while the next ones are handed to it."""
        self.wait()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        self.wait()
        return (time.perf_counter() - start) / calls

    def in_turn(self, competitors: Mapping[str, Callable[[], object]], calls: int, rounds: int) -> dict[str, float]:
        """The median seconds of each; all take turns. Missing are those that fail or that the time does not reach."""
        taken: dict[str, list[float]] = {}
        left = dict(competitors)
        for _ in range(rounds + 1):  # the first one warms up
            for name, call in [*left.items()]:
                if self.over:
                    break
                try:
                    taken.setdefault(name, []).append(self.seconds(call, calls))
                except Exception:  # a layer that a compiler cannot take leaves the others their turns
                    print(f"{name} failed and is left out:\n{traceback.format_exc()}", file=sys.stderr)
                    del left[name]
        return {name: statistics.median(times[1:]) for name, times in taken.items() if times[1:]}

    def begin_peak(self) -> None:
        """Begins to watch how much memory is held."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> str:
        """The most MiB that tensors have held since `begin_peak`; known of a GPU alone."""
        if self.device.type != "cuda":
            return NOT_MEASURED
        return f"{torch.cuda.max_memory_allocated(self.device) / 2**20:.0f}"


def shown(value: float | None, digits: int = 2) -> str:
    return NOT_MEASURED if value is None else f"{value:.{digits}f}"


def ratio(results: Mapping[str, float], one: str, other: str) -> float | None:
    """How many times one took the other's seconds; None where one of them is missing."""
    return results[one] / results[other] if one in results and other in results else None
