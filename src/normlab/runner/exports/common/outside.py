"""Runs an exported file in a process that cannot import normlab.

python -P outside.py <module of the format> <file> <samples.npy> <answers.npz> <threads> <batch size> <batch size> …

All samples go through in batches of the first size, as many as the largest other size in each of the others. Prints how
many samples a second the file answers in batches of the first size, as JSON.
"""

import json
import sys
import time
from collections.abc import Callable
from importlib import util
from typing import Any

import numpy as np

SECONDS = 0.5  # that a speed is measured for


def answers(run: Callable[[Any], Any], samples: Any, batch: int) -> Any:
    return np.concatenate([run(samples[start : start + batch]) for start in range(0, len(samples), batch)])


def speed(run: Callable[[Any], Any], samples: Any, batch: int) -> float:
    """Samples a second in batches of that size, or of all samples where there are fewer."""
    samples = samples[:batch]
    run(samples)
    start, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < SECONDS:
        run(samples)
        done += len(samples)
    return done / passed


def main(module: str, file: str, samples: str, target: str, threads: str, *batches: str) -> None:
    sys.modules["normlab"] = None  # pyright: ignore  # an import raises ImportError from now on
    spec = util.spec_from_file_location("format", module)
    assert spec is not None
    assert spec.loader is not None
    given = util.module_from_spec(spec)
    spec.loader.exec_module(given)
    loaded, x = given.load(file, int(threads)), np.load(samples)
    if isinstance(loaded, dict):
        np.savez(target, **loaded)
        return
    first, *others = map(int, batches)
    few = x[: max(others)]
    found = {"all": answers(loaded, x, first)} | {str(size): answers(loaded, few, size) for size in others}
    np.savez(target, **found)
    print(json.dumps({"speed": speed(loaded, x, first)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
