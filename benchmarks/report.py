"""The report over many runs: 20 seconds for 5,000 at most, and a page that opens within 3.

    python benchmarks/report.py [--quick]

The runs are made up; what is measured is a whole `python -m normlab.report`, from start to exit, and its page. Beside
it: the same command over nine runs, which is mostly imports. A sweep has 20 configurations, a search one for each run.
The page is opened in headless Chromium, where there is one: until its last chart is drawn.
"""

import argparse
import json
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from normlab import compose
from normlab.folder.writing import write_config

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
OPENED = """<script>
const told = () => [...document.querySelectorAll(".chart")].every((chart) => chart.querySelector("svg path[d]"))
  ? console.log(`opened ${performance.now() / 1000} ${document.querySelectorAll("*").length} .`) : setTimeout(told, 10);
told();
</script></body>"""
NORMS = ("batch", "ghost", "group", "instance", "layer", "none", "renorm", "rms", "split", "frn")


def make_runs(sweep: Path, runs: int, epochs: int, search: bool = False) -> None:
    """Run folders of 10 norms × 2 learning rates × seeds, or of 10 norms × a rate of its own; every 23rd failed."""
    config: Any = compose(["model=net", "data=wine"])
    for number in range(runs):
        path, chance = sweep / str(number), random.Random(number)
        norm, rate, seed = NORMS[number % 10], (0.01, 0.1)[number // 10 % 2], number // 20
        if search:
            rate, seed = 10 ** chance.uniform(-3, 0), 0
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


def measure(runs: int, epochs: int, search: bool) -> list[str]:
    """Seconds of the command and of the processor, megabytes and nodes of its page, seconds until that is open."""
    with tempfile.TemporaryDirectory() as folder:
        make_runs(Path(folder), runs, epochs, search)
        start, before = time.perf_counter(), _processor()
        subprocess.run([sys.executable, "-m", "normlab.report", folder], check=True, stdout=subprocess.DEVNULL)
        seconds, processor = time.perf_counter() - start, _processor() - before
        page = Path(folder) / "report.html"
        size = page.stat().st_size / 1e6
        return [f"{seconds:.1f}", f"{processor:.1f}", f"{size:.1f}", *_opened(page)]


def _opened(page: Path) -> list[str]:
    """How many nodes a page has in a browser, and how long it takes to open."""
    if CHROMIUM is None:
        return ["–", "–"]
    page.write_text(OPENED.join(page.read_text().rsplit("</body>", 1)))
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=1200,900"]
    options.append(f"--user-data-dir={page.parent / '.profile'}")
    browser = subprocess.Popen([CHROMIUM, *options, page.as_uri()], stderr=subprocess.PIPE, text=True)
    assert browser.stderr is not None
    try:
        told = next(filter(None, (re.search(r"opened ([\d.]+) (\d+)", line) for line in browser.stderr)))
    finally:
        browser.terminate()
        browser.wait()
    return [told[2], f"{float(told[1]):.1f}"]


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 runs in place of 500 and 5,000")
    quick = parser.parse_args().quick
    some, many = (20, 20) if quick else (500, 5000)
    measured = [
        ("9 runs, 20 epochs", 9, 20, False),
        (f"{some:,} runs, 20 epochs", some, 20, False),
        (f"{some:,} runs, 200 epochs", some, 200, False),
        (f"{many:,} runs of a sweep", many, 20, False),
        (f"{many:,} runs of a search", many, 20, True),
    ]
    print("| runs | seconds | of the processor | MB | nodes | seconds to open |\n| --- | --- | --- | --- | --- | --- |")
    for name, *what in measured:
        print(f"| {' | '.join([name, *measure(*what)])} |", flush=True)


if __name__ == "__main__":
    main()
