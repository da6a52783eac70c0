"""What the benchmarks share: competitors take turns, so that a busy machine slows all of them alike."""

import platform
import statistics
from collections.abc import Callable

import torch


def rounds(competitors: dict[str, Callable[[], float]], count: int) -> dict[str, list[float]]:
    """Calls every competitor `count` times in turn; each returns its measurement."""
    results: dict[str, list[float]] = {name: [] for name in competitors}
    for _ in range(count):
        for name, measure in competitors.items():
            results[name].append(measure())
    return results


def ratio(results: dict[str, list[float]], ours: str, theirs: str) -> float:
    """The median over rounds of ours / theirs."""
    return statistics.median(a / b for a, b in zip(results[ours], results[theirs], strict=True))


def machine() -> str:
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:
            model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    threads = torch.get_num_threads()
    return f"{model}, {threads} thread{'s' if threads > 1 else ''}, torch {torch.__version__}"


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def seconds_table(results: dict[str, list[float]], first: str, reference: str, heading: str) -> str:
    """A row for each competitor: its median seconds, and its ratio to the reference under a heading of its own."""
    rows = [
        [name, f"{statistics.median(times):.2f}", f"{ratio(results, name, reference):.2f}"]
        for name, times in results.items()
    ]
    return table([first, "seconds", heading], rows)
