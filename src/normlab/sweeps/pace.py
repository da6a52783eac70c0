"""Estimates how long the rest of a sweep will take, from how long its jobs have taken."""

import heapq
from collections.abc import Collection
from statistics import fmean


class Pace:
    """Learns by repeated looks at the jobs that run and that have ended; times are seconds of any one clock."""

    def __init__(self, now: float):
        self.begun: dict[int, float] = {}
        self.took: list[float] = []
        self.most, self.last = 1, now  # the most jobs seen side by side, and when the last one ended

    def look(self, running: Collection[int], ended: Collection[int], now: float) -> None:
        """running: the jobs that run now. ended: those that have ended since the last look."""
        for number in running:
            self.begun.setdefault(number, now)
        for number in ended:  # a job that was never seen to run is taken to have begun when the last one ended
            self.took.append(now - self.begun.pop(number, self.last))
            self.last = now
        self.most = max(self.most, len(running))

    def left(self, waiting: int, now: float) -> float | None:
        """Seconds until all jobs have ended, of which `waiting` have not begun; None before one has ended.

        It supposes that as many jobs run side by side as before, each for the mean time of those that have ended.
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
