"""How long the jobs of a sweep take, and so how long the others will."""

import heapq
from collections.abc import Collection
from statistics import fmean


class Pace:
    """Learns from looks at which jobs run and which have ended; times are seconds of any one clock."""

    def __init__(self, now: float):
        self.begun: dict[int, float] = {}
        self.took: list[float] = []
        self.most, self.last = 1, now  # jobs that were seen side by side; when the last one ended

    def look(self, running: Collection[int], ended: Collection[int], now: float) -> None:
        """running: the jobs that run now. ended: those that have ended since the last look."""
        for number in running:
            self.begun.setdefault(number, now)
        for number in ended:  # one that was never seen to run began when the last one ended
            self.took.append(now - self.begun.pop(number, self.last))
            self.last = now
        self.most = max(self.most, len(running))

    def left(self, waiting: int, now: float) -> float | None:
        """Seconds until all have ended, `waiting` jobs not having begun; None before one has ended.

        As many run side by side as did, each for as long as those that have ended did.
        """
        if not self.took:
            return None
        each = fmean(self.took)
        free = [max(each - (now - begun), 0.0) for begun in self.begun.values()]
        free += [0.0] * (self.most - len(free))
        heapq.heapify(free)
        for _ in range(waiting):
            heapq.heapreplace(free, free[0] + each)
        return max(free)
