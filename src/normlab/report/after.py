"""The report that ends every sweep, however it ends."""

import sys
import traceback
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from normlab.errors import ConfigError
from normlab.report import write_report
from normlab.report.runs import read_json


class SweepFolder(Callback):
    """Remembers the folder of the sweep that Hydra runs; where a job fails, Hydra tells its callbacks no end."""

    path: Path | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        SweepFolder.path = Path(config.hydra.sweep.dir)


def report_sweep(code: int) -> int:
    """Writes and prints the report of the sweep that ends with an exit code; returns the code to end with.

    A sweep that was interrupted is reported once a run of it has finished. A report that fails says so and makes 1
    of 0; nothing is written for what was refused, or did not begin.
    """
    folder = SweepFolder.path
    if folder is None or code not in (0, 1, 130) or not _begun(folder, code):
        return code
    sys.stdout.flush()
    try:
        print(write_report([folder]))
    except Exception as error:
        if not isinstance(error, ConfigError):
            traceback.print_exception(error)
        print(f"no report of {folder}: {type(error).__name__}: {error}", file=sys.stderr)
        return code or 1
    return code


def _begun(folder: Path, code: int) -> bool:
    wanted = ("finished",) if code == 130 else None
    results = (read_json(file) for file in folder.glob("*/result.json"))
    return any(isinstance(found, dict) and (wanted is None or found.get("status") in wanted) for found in results)
