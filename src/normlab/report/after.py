"""The report that ends every sweep, however it ends."""

import sys
import traceback
from pathlib import Path

from normlab.errors import ConfigError
from normlab.report import Report, kept, write_report
from normlab.report.runs import read_json


def report_sweep(folder: Path, code: int) -> int:
    """Writes and prints the report of the sweep in `folder`. code: the sweep's exit code. Returns the one to end with.

    A sweep that was interrupted is reported once a run of it has finished. A report that fails says so and makes 1
    of 0; nothing is written for what was refused, or did not begin.
    """
    if code not in (0, 1, 130) or not _begun(folder, code):
        return code
    sys.stdout.flush()
    try:
        print(_report(folder))
    except Exception as error:
        if not isinstance(error, ConfigError):
            traceback.print_exception(error)
        print(f"no report of {folder}: {type(error).__name__}: {error}", file=sys.stderr)
        return code or 1
    return code


def _report(folder: Path) -> Report:
    """The sweep's report, which is made again only where it would come out otherwise."""
    grounds = kept.grounds(folder)
    if (answer := kept.answer(folder, grounds)) is not None:
        return Report(folder, [], answer)
    report = write_report([folder])
    kept.note(folder, grounds, report.answer)
    return report


def _begun(folder: Path, code: int) -> bool:
    wanted = ("finished",) if code == 130 else None
    results = (read_json(file) for file in folder.glob("*/result.json"))
    return any(isinstance(result, dict) and (wanted is None or result.get("status") in wanted) for result in results)
