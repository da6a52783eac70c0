"""What the doctor finds of what is wrong, and what it says of networks that are well.  python benchmarks/doctor.py

Each pitfall, in five degrees, is put into small networks (`patients.py`) of three kinds on two data sets; a miss is one
without that diagnosis. Networks that are well, of as many seeds, must get none: each finding there is a false alarm.
The table goes into docs/doctor.md. --quick: one network and one data set, and nothing is written.
"""

import argparse
import time
from pathlib import Path

import torch
from common import machine, table
from patients import DATA, DEGREES, NETWORKS, PITFALLS, well

PAGE = Path(__file__).parent.parent / "docs" / "doctor.md"
HEADING = "## False alarms and misses"
SEEDS = 5  # of the networks that are well


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures the doctor's misses and false alarms.")
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    start = time.monotonic()
    kinds = [(kind, data) for kind in NETWORKS for data in DATA][: 1 if quick else None]
    rows = [[f"`{code}`", *_found(code, kinds)] for code in PITFALLS]
    seeds = range(1 if quick else SEEDS)
    alarms = [finding for seed in seeds for kind in kinds for finding in well(*kind, seed).diagnosis().findings]
    text = _text(
        rows, len(kinds), len(kinds) * len(seeds), [finding.code for finding in alarms], time.monotonic() - start
    )
    print(text)
    if not quick:
        page = PAGE.read_text()
        PAGE.write_text(page[: page.index(HEADING)] + text)


def _found(code: str, kinds: list[tuple[str, str]]) -> list[str]:
    """For each degree, how many of the networks got the diagnosis; and which other findings there were."""
    counts, others = [], set()
    for degree in range(DEGREES):
        made = [PITFALLS[code](*kind, degree).diagnosis() for kind in kinds]
        found = [code in [finding.code for finding in (*each.findings, *each.notes)] for each in made]
        others |= {finding.code for each in made for finding in each.findings} - {code}
        counts.append(f"{sum(found)}/{len(found)}")
    print(code, *counts, *sorted(others), flush=True)
    return [*counts, ", ".join(f"`{other}`" for other in sorted(others))]


def _text(rows: list[list[str]], networks: int, healthy: int, alarms: list[str], seconds: float) -> str:
    said = f"{len(alarms)} findings ({', '.join(alarms)})" if alarms else "no finding"
    return f"""{HEADING}

`python benchmarks/doctor.py` puts each pitfall, in five degrees from slight to grave (`benchmarks/patients.py` says
what they are), into {networks} networks: dense ones with one and with two norm layers, and a residual one with three,
each on digits and on wine. A cell tells in how many of them that diagnosis was made, as a finding or a note. The
{healthy} networks that are well got {said}. Measured on {machine()},
in {max(1, round(seconds / 60))} minutes.

{table(["pitfall", "slight", "", "", "", "grave", "other findings in any of them"], rows)}
"""


if __name__ == "__main__":
    main()
