"""fair.json in a sweep's folder: the arms, with the trials and the fresh runs of each; see docs/sweeps.md."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from normlab.config.arms import Arm
from normlab.folder import writing
from normlab.folder.files import damaged
from normlab.sweeps.fair.run import Run

FILE = "fair.json"
FORMAT = 1  # a change that this version could not read raises it


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Replaces the file in a sweep's folder, in one step."""
    writing.write_text(path / FILE, json.dumps({"format": FORMAT, **record}, indent=1) + "\n")


def read_record(path: Path) -> dict[str, Any]:
    """What the file in a sweep's folder says; empty where there is none. Raises DamagedError."""
    file = path / FILE
    if not file.is_file():
        return {}
    try:
        record = json.loads(file.read_text())
    except ValueError as error:
        raise damaged(file) from error
    if not isinstance(record, dict) or not isinstance(record.get("arms"), list):
        raise damaged(file)
    return record


def arm_record(
    arm: Arm, trials: Sequence[Run], best: int | None, fresh: Sequence[Run], refused: str | None = None
) -> dict[str, Any]:
    """An arm in plain values. best: the number of its best trial, counted from 0; None: not known, or there is none."""
    tuned = None if best is None else {"trial": best, "job": trials[best].number, "point": trials[best].point}
    return {
        "name": arm.name,
        "settings": arm.settings,
        "space": {key: str(values) for key, values in arm.space.items()},
        "trials": [{"job": _job(run), "point": run.point} for run in trials],
        "tuned": tuned,
        "fresh": [{"job": _job(run), "replicate": number} for number, run in enumerate(fresh, 1)],
        "refused": refused,
    }


def _job(run: Run) -> int | None:
    return run.number if run.begun else None
