"""All runs below a folder as a table, for a notebook."""

from pathlib import Path

import pandas as pd

from normlab.folder.files import HEADER
from normlab.report.runs import Run, find_runs


def runs(folder: str | Path = "outputs") -> pd.DataFrame:
    """A row for each fit in `folder` and below it, in the order of their names.

    Columns: folder, status, score, score_name, seconds; then the metrics (`val/acc`, `test/acc`, …), and the keys of
    the configuration under their dotted names (`optimizer.lr`). A value that a run lacks is NaN or None. Raises
    ConfigError where the folder is not there or holds no run.
    """
    fits = find_runs([Path(folder)], comparable=False)
    known = pd.DataFrame([_outcome(run) for run in fits])
    metrics = pd.DataFrame([run.metrics for run in fits])
    keys = pd.json_normalize([{key: run.config[key] for key in run.config if key not in HEADER} for run in fits])
    return pd.concat([known, metrics, keys.drop(columns=[*known], errors="ignore")], axis=1)


def _outcome(run: Run) -> dict[str, object]:
    outcome = {"folder": str(run.folder), "status": run.status, "score": run.score, "score_name": run.score_name}
    return {**outcome, "seconds": run.seconds}
