"""The figures in the headers of conf/experiment against real runs.

    python benchmarks/experiments.py [--quick] [names]

Runs each header's command as it stands there and compares the mean of each metric with the expected one; they agree
within three standard errors of their difference, by the header's standard deviation. Without names, all experiments
whose data is there. `--quick` trains a few batches, to see that the commands run.
"""

import argparse
import json
import math
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common import table

from normlab.config.compose import check
from normlab.errors import ConfigError

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf" / "experiment"
FIELDS = ("Shows", "Command", "Expected", "Time", "Source")
FIGURE = re.compile(r"(\S+/\S+) (-?\d+\.\d+)(?: ± (\d+\.\d+))?")


@dataclass(frozen=True)
class Expected:
    """Each metric's mean and standard deviation over the seeds of the jobs made with `overrides`.

    The deviation is None where there is one seed.
    """

    overrides: tuple[str, ...]
    figures: dict[str, tuple[float, float | None]]
    seeds: int


@dataclass(frozen=True)
class Header:
    """What an experiment says of itself: the field's text, and of Expected one entry a line."""

    fields: dict[str, str]
    expected: tuple[Expected, ...]

    @property
    def overrides(self) -> list[str]:
        """What stands behind `python train.py` in the command."""
        return shlex.split(self.fields["Command"].partition("train.py")[2])


def read(text: str) -> Header:
    """The header of an experiment's yaml. Raises ValueError where it does not have the form.

    Comment lines `# Field: text`, each of FIELDS; a line that starts with `#   ` goes on with the one above. There may
    be several lines `# Expected: [override …] metric mean ± sd, … (n seeds)`; what takes long may have `(1 seed)` and
    no deviation.
    """
    lines: list[tuple[str, str]] = []
    for line in text.splitlines()[1:]:  # the first one is Hydra's
        if not line.startswith("# "):
            break
        if line.startswith("#   "):
            name, before = lines.pop()
            lines.append((name, f"{before} {line[1:].strip()}"))
        else:
            name, _, value = line[2:].partition(": ")
            lines.append((name, value.strip()))
    names = list(dict.fromkeys(name for name, _ in lines))
    if names != list(FIELDS) or not all(value for _, value in lines):
        raise ValueError(f"expected lines {', '.join(FIELDS)}, found {', '.join(names)}")
    return Header(dict(lines), tuple(_expected(value) for name, value in lines if name == "Expected"))


def _expected(text: str) -> Expected:
    found = re.fullmatch(r"((?:\S+=\S+ )*)(.*) \((1 seed|\d+ seeds)\)", text)
    figures = found and [FIGURE.fullmatch(figure) for figure in found[2].split(", ")]
    if not found or not figures or any(f is None or (f[3] is None) != (found[3] == "1 seed") for f in figures):
        raise ValueError(f"Expected: {text}: the form is [override …] metric mean ± sd, … (n seeds)")
    told = {f[1]: (float(f[2]), float(f[3]) if f[3] else None) for f in figures if f}
    return Expected(tuple(found[1].split()), told, int(found[3].split()[0]))


def missing(header: Header) -> str | None:
    """Why an experiment cannot run here; None where its data is there."""
    if "NORMLAB_DATA_DIR" not in header.fields["Command"]:
        return None
    if "NORMLAB_DATA_DIR" not in os.environ:
        return "NORMLAB_DATA_DIR does not say where its data is"
    try:
        check(header.overrides)
    except ConfigError as error:
        return str(error)
    return None


def run(overrides: Sequence[str], folder: Path, quick: bool) -> list[dict]:
    """The result.json of each run of `python train.py` with these overrides."""
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=2"] if quick else []
    command = [sys.executable, str(ROOT / "train.py"), *overrides, *short, "name=run"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")
    return [json.loads(path.read_text()) for path in sorted(folder.glob("outputs/run/**/result.json"))]


def compare(name: str, header: Header, results: list[dict]) -> list[list[str]]:
    rows = []
    for expected in header.expected:
        runs = [result for result in results if set(expected.overrides) <= set(result["overrides"])]
        assert runs, f"{name}: the command makes no run with {' '.join(expected.overrides)}"
        for metric, (mean, deviation) in expected.figures.items():
            found = statistics.mean(run["metrics"][metric] for run in runs)
            verdict = _verdict(found - mean, deviation, expected.seeds, len(runs))
            said = f"{mean:.3f}" + (f" ± {deviation:.3f}" if deviation is not None else "") + f" ({expected.seeds})"
            rows.append([name, " ".join(expected.overrides), metric, said, f"{found:.3f} ({len(runs)})", verdict])
    return rows


def _verdict(off: float, deviation: float | None, seeds: int, runs: int) -> str:
    if deviation is None:
        return "of one seed, not judged"
    error = deviation * math.sqrt(1 / seeds + 1 / runs)
    # a figure is rounded, and so is a deviation that reads 0.000
    return "as expected" if abs(off) <= 3 * max(error, 5e-4) else "DIFFERS"


def main() -> None:
    names = sorted(path.stem for path in CONF.glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few batches of each, to see that they run")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(names)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names):
        parser.error(f"no experiment {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    rows = []
    for name in arguments.names or names:
        header = read((CONF / f"{name}.yaml").read_text())
        if reason := missing(header):
            print(f"{name}: skipped, {reason}", flush=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            results = run(header.overrides, Path(folder), arguments.quick)
        print(f"{name}: {time.perf_counter() - start:.0f} s; the header says {header.fields['Time']}", flush=True)
        if not arguments.quick:
            rows += compare(name, header, results)
    if rows:
        print("\n" + table(["experiment", "of it", "metric", "expected (seeds)", "found (runs)", ""], rows))
    if any(row[-1] == "DIFFERS" for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
