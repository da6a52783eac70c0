"""How well a run did while it was young."""

from statistics import fmean

from normlab.errors import ConfigError
from normlab.folder.files import read_rows
from normlab.runner.measures.common.finished import FinishedRun

PART = 4  # the epochs are cut into so many parts, and the first is looked at


def measure(run: FinishedRun) -> float:
    """The mean of val/acc over the first quarter of the epochs that the run took, rounded down but at least one.

    Raises ConfigError where none of these epochs has it.
    """
    rows = read_rows(run.folder / "metrics.csv")
    early = [float(row["val/acc"]) for row in rows[: max(1, len(rows) // PART)] if row.get("val/acc")]
    if not early:
        raise ConfigError(f"{run.name} has no val/acc in the first quarter of its epochs, which `early` is the mean of")
    return fmean(early)
