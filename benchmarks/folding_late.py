"""Whether it is worth it to fold norms into the weights for the last epochs, as quantization-aware recipes do.

    python benchmarks/folding_late.py [--quick]

`resnet` on digits of 8×8, twelve epochs, six seeds, three ways for the last quarter: as before; statistics that stand
still (`callbacks=freeze_statistics`), which is the same function; and norms folded into the weights in front of them,
which train on without γ and β of their own, with momentum from zero. The score is the validation accuracy after the
last epoch; the time of a step is that of the processor, by one thread, in the last quarter.
"""

import argparse
import csv
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import machine, table
from lightning import Callback

import normlab
from normlab.tasks.optimizers import parameter_groups

RUN = ["model=resnet", "data=digits", "data.size=8", "data.channels=1", "logger=none", "trainer=cpu", "test=false"]
START = 0.75


class FoldLate(Callback):
    """Folds the network's norms into its weights when the last quarter begins; the optimizer goes on with those."""

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        if batch_idx or trainer.current_epoch != round(START * trainer.max_epochs):
            return
        folded = normlab.fold(task.network, batch[0][:2]).train().requires_grad_(True)
        (optimizer,) = trainer.optimizers
        groups = parameter_groups(folded)
        assert len(groups) == len(optimizer.param_groups)
        for group, new in zip(optimizer.param_groups, groups, strict=True):
            group["params"] = new["params"]
        optimizer.state.clear()
        task.network = task.guard.network = folded
        task.guard.begin_epoch()


class Clock(Callback):
    """The processor's seconds of the steps in the last quarter."""

    def __init__(self):
        self.seconds = []

    def on_train_batch_start(self, *_):
        self.start = time.process_time()

    def on_train_batch_end(self, trainer, *_):
        if trainer.current_epoch >= START * trainer.max_epochs:
            self.seconds.append(time.process_time() - self.start)


WAYS = {
    "as before": ([], []),
    "callbacks=freeze_statistics": (["callbacks=freeze_statistics", f"callbacks.freeze_statistics.start={START}"], []),
    "folded": ([], [FoldLate]),
}


def train(way: str, seed: int, epochs: int) -> tuple[float, float]:
    """Validation accuracy after the last epoch, and milliseconds of a step in the last quarter."""
    overrides, added = WAYS[way]
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        config = normlab.compose([*RUN, *overrides, f"seed={seed}", f"trainer.max_epochs={epochs}"])
        normlab.run(config, folder, callbacks=[*(make() for make in added), clock])
        last = [*csv.DictReader((Path(folder) / "metrics.csv").read_text().splitlines())][-1]
    return float(last["val/acc"]), 1e3 * statistics.median(clock.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, to see that it runs")
    seeds, epochs = (1, 4) if parser.parse_args().quick else (6, 12)
    torch.set_num_threads(1)
    results = {way: [] for way in WAYS}
    for seed in range(seeds):
        for way in WAYS:
            results[way].append(train(way, seed, epochs))
    rows = []
    for way, pairs in results.items():
        scores, times = zip(*pairs, strict=True)
        beside = [score - first for score, (first, _) in zip(scores, results["as before"], strict=True)]
        pace = [each / first for each, (_, first) in zip(times, results["as before"], strict=True)]
        sd = f" ± {statistics.stdev(beside):.3f}" if len(beside) > 1 else ""
        rows.append([way, f"{statistics.mean(scores):.3f}", f"{statistics.mean(beside):+.3f}{sd}"])
        rows[-1] += [f"{statistics.median(times):.1f}", f"{statistics.median(pace):.2f}"]
    print(f"{machine()}\n")
    print(table(["the last quarter", "val. accuracy", "difference of accuracy", "ms a step", "×"], rows))


if __name__ == "__main__":
    main()
