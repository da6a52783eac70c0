"""The report over many runs: at most 10 seconds and 5 MB for 500.  python benchmarks/report.py [--quick]

The runs are made up; what is measured is a whole `python -m normlab.report`, from start to exit, and its page. Beside
it: the same command over nine runs, which is mostly imports.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from normlab import compose
from normlab.folder.writing import write_config

NORMS = ("batch", "ghost", "group", "instance", "layer", "none", "renorm", "rms", "split", "frn")


def make_runs(sweep: Path, runs: int, epochs: int) -> None:
    """Run folders of 10 norms × 2 learning rates × seeds; every 23rd failed."""
    config = compose(["model=net", "data=wine"])
    for number in range(runs):
        norm, rate, seed = NORMS[number % 10], (0.01, 0.1)[number // 10 % 2], number // 20
        path, chance = sweep / str(number), random.Random(number)
        path.mkdir(parents=True)
        config.overrides = ["model=net", "data=wine", f"norm={norm}", f"optimizer.lr={rate}", f"seed={seed}"]
        config.seed, config.optimizer.lr, config.norm = seed, rate, {"_target_": norm}
        write_config(path, config)
        level = 0.9 + 0.006 * NORMS.index(norm) - rate / 10 + chance.gauss(0, 0.006)
        curve = [level - 0.5 * 0.8**epoch + chance.gauss(0, 0.004) for epoch in range(epochs)]
        rows = [f"{epoch},{8 * epoch},{value!r}\n" for epoch, value in enumerate(curve)]
        (path / "metrics.csv").write_text("epoch,step,val/acc\n" + "".join(rows))
        failed = number % 23 == 22
        result = {
            "format": 1,
            "action": "fit",
            "status": "failed" if failed else "finished",
            "score": None if failed else max(curve),
            "score_name": "val/acc",
            "score_mode": "max",
            "metrics": {} if failed else {"test/acc": level, "test/loss": 1 - level},
            "seconds": 10 + chance.random(),
            "parameters": 383,
            "overrides": list(config.overrides),
            "error": "RuntimeError: the loss is NaN in epoch 3" if failed else None,
        }
        (path / "result.json").write_text(json.dumps(result))


def measure(runs: int, epochs: int) -> tuple[float, float, float]:
    """Seconds of the command, those of the processor, and its page's megabytes."""
    with tempfile.TemporaryDirectory() as folder:
        make_runs(Path(folder), runs, epochs)
        start, before = time.perf_counter(), _processor()
        subprocess.run([sys.executable, "-m", "normlab.report", folder], check=True, stdout=subprocess.DEVNULL)
        seconds, processor = time.perf_counter() - start, _processor() - before
        return seconds, processor, (Path(folder) / "report.html").stat().st_size / 1e6


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 runs in place of 500")
    many = 20 if parser.parse_args().quick else 500
    print("| runs | epochs | seconds | of the processor | MB |\n| --- | --- | --- | --- | --- |")
    for runs, epochs in ((9, 20), (many, 20), (many, 200)):
        seconds, processor, megabytes = measure(runs, epochs)
        print(f"| {runs} | {epochs} | {seconds:.1f} | {processor:.1f} | {megabytes:.1f} |", flush=True)


if __name__ == "__main__":
    main()
