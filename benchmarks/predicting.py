"""The memory of action=predict on tables of 100,000 and of 1,000,000 rows: a table may be larger than memory.

    python benchmarks/predicting.py [--quick]

Eight numbers, with gaps, and two categories in each row; `net`, batch 1024. The peak is the process's largest resident
set, from its start to its end. Beside ours: a script that reads the whole file by pandas and asks `normlab.load` once.
Target: ours takes at a million rows at most 1.1 × what it takes at 100,000.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from common import machine, table

TRAIN = Path(__file__).parent.parent / "train.py"
FIT = ["model=net", "data=csv", "data.path=train.csv", "data.target=y", "data.batch_size=1024", "logger=none"]
BY_HAND = """
import sys, pandas as pd, normlab
model = normlab.load("outputs/a")
frame = pd.read_csv(sys.argv[1]) if sys.argv[1].endswith(".csv") else pd.read_parquet(sys.argv[1])
shares = model.predict_proba(frame)
pd.DataFrame(shares, columns=model.classes_).to_csv("by_hand.csv")
"""
AT_ONCE = 100_000  # rows that are written at once


def rows(count: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame({f"x{place}": random.normal(size=count).round(5) for place in range(8)})
    frame["y"] = np.where(frame["x0"] > 0, "yes", "no")
    frame.loc[::10, "x1"] = np.nan
    frame["job"], frame["town"] = random.choice([*"abcdef"], count), random.choice([*"uvwxyz"], count)
    return frame


def write(count: int, folder: Path) -> None:
    """new<count>.csv and .parquet, without holding them in memory."""
    from pyarrow import Table, parquet

    writer = None
    for start in range(0, count, AT_ONCE):
        frame = rows(min(AT_ONCE, count - start), start + 1).drop(columns="y")
        frame.to_csv(folder / f"new{count}.csv", mode="a", index=False, header=not start)
        part = Table.from_pandas(frame)
        writer = writer or parquet.ParquetWriter(folder / f"new{count}.parquet", part.schema)
        writer.write_table(part)
    assert writer is not None
    writer.close()


def peak(folder: Path, *command: str) -> float:
    """The peak of a process in MiB."""
    process = subprocess.Popen([sys.executable, *command], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, command
    return usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    counts = (2_000, 20_000) if parser.parse_args().quick else (100_000, 1_000_000)
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows(5_000, 0).to_csv(folder / "train.csv", index=False)
        peak(folder, str(TRAIN), *FIT, "name=a", "trainer.max_epochs=1")
        for count in counts:
            write(count, folder)
        for kind in ("csv", "parquet"):
            ours, by_hand = [], []
            for count in counts:
                file = f"new{count}.{kind}"
                ours.append(peak(folder, str(TRAIN), "action=predict", "name=a", f"input={file}"))
                with (folder / "outputs/a/predict/predictions.csv").open() as written:
                    assert sum(1 for _ in written) == count + 1
                by_hand.append(peak(folder, "-c", BY_HAND, file))
            for who, (small, large) in (("action=predict", ours), ("the whole file at once", by_hand)):
                lines.append([f"{kind}, {who}", f"{small:.0f}", f"{large:.0f}", f"{large / small:.2f}"])
    print(f"{machine()}\n")
    header = ["", f"MiB at {counts[0]:,} rows", f"MiB at {counts[1]:,} rows", "×"]
    print(table(header, lines))


if __name__ == "__main__":
    main()
