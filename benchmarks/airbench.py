"""What each part of `experiment=airbench` brings, in a small setting: one part left out at a time.

    NORMLAB_DATA_DIR=<folder> python benchmarks/airbench.py [--quick]

3,000 training images, a quarter of the width, batches of 128 with the rate that the recipe has for them, ten epochs:
230 steps, about half of those that the recipe takes. Two seeds, alike for all ways. Each row has the accuracy on the
10,000 test images, and its difference from the whole recipe with the same seed.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from common import machine, table
from torch import nn

from normlab import compose
from normlab.runner.run import run_job

SMALL = ["experiment=airbench", "model.width=16", "data.subset=3000", "data.batch_size=128", "optimizer.lr=0.1875"]
RANDOM = "first layer as torch makes it"
WAYS = {
    "the recipe": [],
    "data.flip=true": ["data.flip=true"],
    "callbacks=none": ["callbacks=none"],
    "optimizer.norm_bias_scale=1": ["optimizer.norm_bias_scale=1"],
    RANDOM: [],
    "freeze=null": ["freeze=null"],
}


def random_filters(file: Path) -> str:
    """The override that starts from filters of the first layer that no image has shaped."""
    torch.manual_seed(123)
    torch.save({"whitening.weight": nn.Conv2d(3, 24, 2).weight.detach()}, file)
    return f"init={file}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed and epoch, to see that it runs")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=3"] if quick else []
    scores: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        WAYS[RANDOM] = [random_filters(Path(folder) / "random.pth")]
        for seed in range(1 if quick else 2):
            for number, (way, overrides) in enumerate(WAYS.items()):
                config = compose([*SMALL, *overrides, *short, "logger=none", f"seed={seed}"])
                result = run_job(config, Path(folder) / f"{number}-{seed}")
                scores[way].append(result.metrics["test/acc"])
    rows = []
    for way, found in scores.items():
        off = [score - whole for score, whole in zip(found, scores["the recipe"], strict=True)]
        sds = [f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "" for values in (found, off)]
        rows.append([way, f"{statistics.mean(found):.3f}{sds[0]}", f"{statistics.mean(off):+.3f}{sds[1]}"])
    print(f"{machine()}\n")
    print(table(["way", "test accuracy", "difference of accuracy"], rows))


if __name__ == "__main__":
    main()
