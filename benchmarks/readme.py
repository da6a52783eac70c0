"""The figures of the README, docs/, the experiments' headers and benchmarks/README.md, measured once more.

    python benchmarks/readme.py [--quick] [part …]

Every figure is read from the text where it stands; what a text and its measurement part by is judged by their noise
(`figures.py`). The answer is a table of what was said, what was measured and the verdict, and then the lines to edit;
exit code 1 says that there are some. The parts, all of them where none is named:

- scores: the first table of the README, each command over all its seeds or splits, in single and in double precision.
- times: the seconds in that table, each command from start to exit.
- headers: the headers in conf/experiment whose figures are of several seeds (`experiments.py`).
- tables: each table in benchmarks/README.md by its own script, and the sentences of the README and docs/ that
  quote one.

Times are judged on an idle machine only. About an hour on two cores; with the data of NORMLAB_DATA_DIR, without which
what needs it is left out. `--quick`, for every change: half the seeds of the first row, all splits of the tables, and a
refusal beside the imports; three minutes.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace
from functools import cache
from pathlib import Path

import experiments
import startup
from common import machine, rounds, table
from figures import (
    RATIO_NOISE,
    Finding,
    ScoreRow,
    Table,
    agree,
    compare_tables,
    number,
    score_noise,
    score_rows,
    tables,
)

ROOT = Path(__file__).parent.parent
METRICS = {"accuracy": "test/acc", "R²": "test/r2"}
SCRIPTS = ("steps", "startup", "mynet", "norms", "distributed", "data", "sweeps", "report", "recording")
TIME_NOISE = 1.5  # a whole command's seconds, on an idle machine
SCORE_NOISE = 1.005  # a quoted score: 0.004 or so
NEEDS_BFLOAT16 = "fast_cpu"
LOAD_OF_OTHERS = 0.7  # processes that run beside this one
REFUSAL, IMPORTS = "train.py, to a refusal", "import torch, lightning"


@dataclass(frozen=True)
class Sentence:
    """A sentence that quotes a script's table: `pattern` has a group for each figure, `cells` its row and column."""

    file: str
    pattern: str
    script: str
    cells: tuple[tuple[str, str], ...]
    factor: float


def cells(row: str, *columns: str) -> tuple[tuple[str, str], ...]:
    return tuple((row, column) for column in columns)


REFUSED = Sentence("README.md", r"answered in ([\w ]+?), before", "startup", ((REFUSAL, "seconds"),), TIME_NOISE)
IMPORTED = Sentence("README.md", r"eight seconds, (\w+) are imports", "startup", ((IMPORTS, "seconds"),), TIME_NOISE)
ALLOCATED, FAST_CPU = ("the same, allocator=fast", "× the loop"), ("ours, experiment=fast_cpu", "× the loop")
SCORES = ("accuracy", "AUROC")
BANK = r"`experiment=bank`\): accuracy ([\d.]+) ± [\d.]+, AUROC ([\d.]+)"
REGRESSION = r"regression reaches ([\d.]+) and ([\d.]+)"
SHORTENED = r"before the call, ([\d.]+) and ([\d.]+)\."
WIDER = r"custom_model has ([\d.]+) ± [\d.]+ and ([\d.]+)"
SENTENCES = (
    REFUSED,
    IMPORTED,
    Sentence("docs/speed.md", r"`mynet` ([\d.]+) times as fast", "mynet", (ALLOCATED,), RATIO_NOISE),
    Sentence("docs/speed.md", r"bfloat16: ([\d.]+) × the tutorial's loop", "mynet", (FAST_CPU,), RATIO_NOISE),
    Sentence("docs/your-data.md", BANK, "data", cells("experiment=bank", *SCORES), SCORE_NOISE),
    Sentence("docs/your-data.md", REGRESSION, "data", cells("logistic regression", *SCORES), SCORE_NOISE),
    Sentence(
        "docs/your-data.md", SHORTENED, "data", cells("experiment=bank, without the duration", *SCORES), SCORE_NOISE
    ),
    Sentence(
        "conf/experiment/bank.yaml", WIDER, "data", cells("experiment=bank model=custom_model", *SCORES), SCORE_NOISE
    ),
)


def scores(quick: bool) -> Iterable[Finding]:
    for row in score_rows((ROOT / "README.md").read_text()):
        of_digits = row.varied == "seed"
        values = row.values[: len(row.values) // 2] if quick and of_digits else row.values
        precisions = ["32-true"] if quick and of_digits else ["32-true", "64-true"]
        yield score(row, values, precisions)


def score(row: ScoreRow, values: tuple[int, ...], precisions: list[str]) -> Finding:
    """Trains a row's command with the first of its seeds, in each precision; the text's figure is of the first one."""
    varied = [f"{row.varied}={','.join(map(str, values))}", f"trainer.precision={','.join(precisions)}"]
    with tempfile.TemporaryDirectory() as folder:
        results = experiments.run(["-m", *row.overrides, *varied], Path(folder), quick=False)
    found: dict[str, dict[str, float]] = {precision: {} for precision in precisions}
    for result in results:
        typed = dict(override.split("=", 1) for override in result["overrides"])
        found[typed["trainer.precision"]][typed[row.varied]] = result["metrics"][METRICS[row.metric]]
    own, *other = found.values()
    assert len(own) == len(values), f"{row.overrides}: {len(own)} of {len(values)} runs"
    differences = [own[value] - twin[value] for twin in other for value in own]
    mean, sd = statistics.mean(own.values()), statistics.stdev(own.values())
    noise = score_noise(row.sd, len(values), len(row.values), differences)
    whole = len(values) == len(row.values)
    off = max(abs(mean - row.mean), abs(sd - row.sd) if whole else 0.0)
    over = f"{row.varied}={values[0]}…{values[-1]}"
    return Finding(
        f"README.md:{row.line}",
        f"{row.command}, {over}",
        f"{row.mean:.3f} ± {row.sd:.3f}",
        f"{mean:.3f} ± {sd:.3f} (first {next(iter(own.values())):.3f}; may part by {noise:.3f})",
        "as said" if off <= noise else "DIFFERS",
    )


def times(quick: bool) -> Iterable[Finding]:
    if quick:
        return
    for row in score_rows((ROOT / "README.md").read_text()):
        command = [str(ROOT / "train.py"), *row.overrides]
        found = statistics.median(startup.seconds(command, 0) for _ in range(3))
        low, high = row.seconds
        said = f"{low:.0f}–{high:.0f} s" if low < high else f"{low:.0f} s"
        verdict = "as said" if low / TIME_NOISE <= found <= high * TIME_NOISE else "DIFFERS"
        yield Finding(f"README.md:{row.line}", row.command, said, f"{found:.1f} s", verdict)


def headers(quick: bool) -> Iterable[Finding]:
    for path in [] if quick else sorted((ROOT / "conf" / "experiment").glob("*.yaml")):
        header = experiments.read(path.read_text())
        where = f"conf/experiment/{path.name}"
        if reason := experiments.missing(header) or ("of one seed" if header.expected[0].seeds == 1 else None):
            yield Finding(where, path.stem, "", reason, "not judged")
            continue
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            results = experiments.run(header.overrides, Path(folder), quick=False)
        yield Finding(where, "Time", header.fields["Time"], f"{time.perf_counter() - start:.0f} s", "not judged")
        for _, overrides, metric, said, found, verdict in experiments.compare(path.stem, header, results):
            yield Finding(where, f"{overrides} {metric}", said, found, verdict)


def benchmarks(quick: bool) -> Iterable[Finding]:
    if quick:
        yield refusal()
        return
    said = tables((ROOT / "benchmarks" / "README.md").read_text())
    for script in SCRIPTS:
        yield from compare_tables("benchmarks/README.md", said, printed(script))
    for sentence in SENTENCES:
        yield from quoted(sentence)


def refusal() -> Finding:
    """The seconds of a refusal by those of the imports: both stand in the README, and another machine has others."""
    (_, (said,)), (_, (imports,)) = find(REFUSED), find(IMPORTED)
    results = rounds(
        {name: lambda name=name: startup.seconds(*startup.COMMANDS[name]) for name in (REFUSAL, IMPORTS)}, 4
    )
    measured = statistics.median(results[REFUSAL][1:]) / statistics.median(results[IMPORTS][1:])
    ratio = (number(said) or 0) / (number(imports) or 1)
    where = f"README.md:{find(REFUSED)[0]}"
    verdict = agree(str(ratio), str(measured), 2 * RATIO_NOISE)
    return Finding(where, "a refusal's time by that of the imports", f"{ratio:.3f}", f"{measured:.3f}", verdict)


def find(sentence: Sentence) -> tuple[int, tuple[str, ...]]:
    """The line of a sentence in its text, and its figures. Raises ValueError where it is not there."""
    text = (ROOT / sentence.file).read_text()
    found = re.search(sentence.pattern.replace(" ", r"\s+(?:#\s+)?"), text)
    if not found:
        raise ValueError(f"{sentence.file} has no {sentence.pattern!r}: take the sentence from benchmarks/readme.py")
    return text.count("\n", 0, found.start(1)) + 1, found.groups()


def quoted(sentence: Sentence) -> Iterable[Finding]:
    line, figures = find(sentence)
    for said, (row, column) in zip(figures, sentence.cells, strict=True):
        cells = [
            one.rows[row][1][one.header.index(column) - 1]
            for one in printed(sentence.script)
            if row in one.rows and column in one.header
        ]
        verdict = agree(said, cells[0], sentence.factor) if cells else "not judged"
        if sentence.factor != SCORE_NOISE and NEEDS_BFLOAT16 in row and not has_bfloat16():
            verdict = "not judged"
        yield Finding(f"{sentence.file}:{line}", f"{row}, {column}", said, cells[0] if cells else "no data", verdict)


@cache
def printed(script: str) -> list[Table]:
    """The tables that a benchmark prints."""
    command = [sys.executable, str(Path(__file__).with_name(f"{script}.py"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"benchmarks/{script}.py\n{done.stdout}{done.stderr}")
    return tables(done.stdout)


def has_bfloat16() -> bool:
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and re.search(r"avx512_bf16|amx_bf16", flags.read_text()) is not None


PARTS = {"scores": scores, "times": times, "headers": headers, "tables": benchmarks}
TAKE_TIME = ("times", "tables")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="what three minutes can tell")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - PARTS.keys():
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    load = os.getloadavg()[0]
    idle = load < LOAD_OF_OTHERS
    print(f"{machine()}, load {load:.1f}: times are {'' if idle or arguments.quick else 'not '}judged", flush=True)
    findings = []
    for part in arguments.parts or PARTS:
        for finding in PARTS[part](arguments.quick):
            judged = idle or arguments.quick or part not in TAKE_TIME
            findings.append(finding if judged else replace(finding, verdict="not judged"))
            print(f"{findings[-1].verdict:10}  {finding.where}  {finding.about}: {finding.measured}", flush=True)
    print("\n" + table(["where", "what", "the text says", "measured", ""], [list(astuple(one)) for one in findings]))
    edits = [one for one in findings if one.verdict == "DIFFERS"]
    for one in edits:
        print(f"edit {one.where}: {one.about}: {one.said} is {one.measured}")
    if edits:
        sys.exit(1)


if __name__ == "__main__":
    main()
