"""What is measured of finished runs, a file for each measure: `normlab.folder.measures` says what each one means.

Each file has a function `measure`, which takes a `FinishedRun`. torch is imported where a measure needs a network.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from normlab.errors import ConfigError, SweepError
from normlab.folder.files import known_result
from normlab.folder.measures import read_measured, write_measured
from normlab.folder.place import shown
from normlab.runner.measures.common.finished import FinishedRun


def measure(folder: Path, names: Sequence[str]) -> dict[str, float]:
    """Measures the run in `folder`, which is only read; `names` are keys of `normlab.folder.measures.MEASURES`.

    Random numbers stay as they are. Raises ConfigError for a run that has not finished, and where it lacks what a
    measure is taken of, such as its best checkpoint.
    """
    with FinishedRun(folder) as run:
        return {name: import_module(f"{__name__}.{name}").measure(run) for name in names}


def measure_sweep(folder: Path, wanted: Mapping[int, Sequence[str]]) -> None:
    """Writes measured.json into run folders of a sweep. wanted: the measures of each run, by its job's number.

    What is there of the same configuration is not measured again. Runs that have not finished are left out. Raises
    SweepError at the end for runs that could not be measured.
    """
    failed: list[str] = []
    for number in sorted(wanted, key=lambda number: (_data(folder / str(number)), number)):  # one data set is kept
        run = folder / str(number)
        result, known = known_result(run), read_measured(run)
        missing = [name for name in wanted[number] if name not in known]
        if not missing or result.get("status") != "finished":
            continue
        try:
            write_measured(run, result["config_hash"], known | measure(run, missing))
        except ConfigError as error:
            failed.append(str(error))
    if failed:
        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        raise SweepError(f"runs of {shown(folder)} that could not be measured: {failed[0]}{more}")


def _data(run: Path) -> list[str]:
    """What was typed of a run's data."""
    return [line for line in known_result(run).get("overrides", []) if line.startswith("data")]
