"""action=export: a checkpoint's network in a file that needs no normlab, tried in a process that has none."""

import copy
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from normlab.errors import ConfigError
from normlab.folder.place import shown
from normlab.folder.writing import copy_whole, remove
from normlab.runner import exports
from normlab.runner.exports.common import outside
from normlab.runner.exports.common.facts import facts, write_facts
from normlab.runner.exports.common.graph import Served, Source, refusing
from normlab.runner.exports.common.quality import quality
from normlab.runner.exports.common.samples import calibrating, entry, first_batches, part_to_test, raw
from normlab.runner.exports.common.wanted import Wanted
from normlab.tasks.base import Task

log = logging.getLogger(__name__)

TOLERANCE = 1e-5  # of the largest output
BATCH = 128  # samples at a time
SIZES = (1, 2, 7)  # of batches that a file must answer as it answers others
MOST, MOST_INT8 = 1024, 10_000  # samples that a file is tried on


def write_export(wanted: Wanted, task: Task, data: Any, folder: Path) -> dict[str, float]:
    """Writes the file and export.json into `folder`; returns what was measured, for result.json.

    The network is exported in float32, in evaluation mode. Raises ConfigError, and leaves no file, where it cannot be
    exported, and where the file does not answer the data's test samples as the checkpoint does.
    """
    form = exports.module(wanted.format)
    task.float().eval().requires_grad_(False)
    part = part_to_test(data)
    x, y = first_batches(data, part, MOST_INT8 if wanted.int8 else MOST)
    given = raw(data, part, torch.arange(len(x)))
    served = Served(entry(data), task.network, task.answer)
    trial = Trial(form, given.numpy(), lambda network: _answers(task, network, x), task.network)
    with TemporaryDirectory(prefix=".export-", dir=folder) as place:
        file = Path(place) / form.FILE
        with refusing(f"format={wanted.format}: the network"):
            form.write(Source(served, given[:1].repeat(2, *[1] * (given.ndim - 1))), str(file))
        figures = trial.run(file)
        _check(wanted.format, figures["export/difference"])
        if wanted.int8:
            float32, file = file, file.with_suffix(f".int8{file.suffix}")
            form.quantize(str(float32), str(file), calibrating(data).numpy())
            figures = trial.run(file)
            figures |= quality(data.task, {"export/": trial.answered, "export/checkpoint_": trial.expected}, y.numpy())
        if trial.answers_itself:
            figures["export/checkpoint_samples_per_second"] = trial.speed(served)
        figures |= {"export/bytes": file.stat().st_size, "export/checkpoint_bytes": wanted.checkpoint.stat().st_size}
        target = folder / file.name
        remove(target)  # first, so that no file ever stands beside the facts of another
        write_facts(folder, file.name, facts(wanted, task, data, given, trial.answers_itself, figures))
        copy_whole(file, target)
    log.info(_said(target, figures, f"{len(x)} {part} samples", trial.batch))
    return figures


class Trial:
    """Raw samples, what the checkpoint answers to them, and exported files that are to answer the same."""

    def __init__(
        self, form: ModuleType, samples: np.ndarray, answer: Callable[[nn.Module], np.ndarray], network: nn.Module
    ):
        """answer: what a network answers to the samples, as the run's own data prepares them."""
        self.form, self.samples, self.answer, self.network = form, samples, answer, network
        self.batch = min(BATCH, len(samples))
        self.expected = self.answered = answer(network)
        self.answers_itself = not getattr(form, "WEIGHTS", False)
        if not np.isfinite(self.expected).all():
            raise ConfigError(
                "action=export: the checkpoint answers test samples with NaN or inf; choose another ckpt="
            )

    def run(self, file: Path) -> dict[str, float]:
        """How far the file's answers are off, at the most for some size of batch, and how many it gives a second."""
        given, target = file.with_name("samples.npy"), file.with_name("answers.npz")
        np.save(given, self.samples)
        numbers = map(str, (torch.get_num_threads(), self.batch, *SIZES))
        script = [sys.executable, "-P", outside.__file__, str(self.form.__file__), str(file), str(given), str(target)]
        done = subprocess.run([*script, *numbers], capture_output=True, text=True, check=False)
        if done.returncode:
            last = next(iter(reversed(done.stderr.strip().splitlines())), f"it ended with {done.returncode}")
            raise ConfigError(f"action=export: {file.name} does not run in a process without normlab: {last}")
        with np.load(target) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        if not self.answers_itself:
            return {"export/difference": self._off([self._by_weights(found)])}
        self.answered = found["all"]
        speed = json.loads(done.stdout.splitlines()[-1])["speed"]
        return {"export/difference": self._off([*found.values()]), "export/samples_per_second": speed}

    def speed(self, served: Served) -> float:
        """Samples a second of the checkpoint's network as it is, in this process."""
        with torch.no_grad():
            return outside.speed(lambda x: served(torch.from_numpy(x)), self.samples, self.batch)

    def _off(self, several: list[np.ndarray]) -> float:
        """The largest difference of answers to the first samples or all, relative to the largest answer."""
        largest = max(float(np.abs(answers - self.expected[: len(answers)]).max()) for answers in several)
        return largest / float(np.abs(self.expected).max())

    def _by_weights(self, weights: dict[str, np.ndarray]) -> np.ndarray:
        """The answers of a network that has nothing but what a file holds."""
        network = copy.deepcopy(self.network)
        for values in network.state_dict().values():
            values.zero_()
        network.load_state_dict({name: torch.from_numpy(values) for name, values in weights.items()})
        return self.answer(network)


@torch.no_grad()
def _answers(task: Task, network: nn.Module, x: Tensor) -> np.ndarray:
    return torch.cat([task.answer(network(batch)) for batch in x.split(BATCH)]).numpy()


def _check(name: str, difference: float) -> None:
    if not difference <= TOLERANCE:  # NaN is no smaller either
        raise ConfigError(
            f"format={name}: the file's answers are off the checkpoint's by {difference:.1e} of the largest, for some "
            f"size of batch; {TOLERANCE:.0e} is allowed, and no file is written: in evaluation a network must answer a "
            "sample alike whatever else is in the batch"
        )


def _said(target: Path, figures: dict[str, float], samples: str, batch: int) -> str:
    size, before = (f"{figures[f'export/{key}'] / 1000:,.0f} kB" for key in ("bytes", "checkpoint_bytes"))
    words = [f"{shown(target)}: {size} (checkpoint {before})"]
    words.append(f"off by {figures['export/difference']:.1e} of the largest answer to {samples}")
    if "export/samples_per_second" in figures:
        speed, plain = (figures[f"export/{key}samples_per_second"] for key in ("", "checkpoint_"))
        threads = torch.get_num_threads()
        words.append(f"{speed:,.0f} samples/s (checkpoint {plain:,.0f}) at batch {batch} by {threads} threads")
    for name in ("acc", "r2"):
        if f"export/{name}" in figures:
            now, plain = (figures[f"export/{key}{name}"] for key in ("", "checkpoint_"))
            words.append(f"{name} {now:.4f} (checkpoint {plain:.4f})")
    return ", ".join(words)
