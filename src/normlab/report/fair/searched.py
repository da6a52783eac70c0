"""The trials that were chosen from, as a comparison over the keys that were tuned."""

from dataclasses import replace

from normlab.report.compare import compare
from normlab.report.comparison import Comparison
from normlab.report.fair.sweep import FairSweep
from normlab.report.runs import find_runs


def searched(sweep: FairSweep) -> list[Comparison]:
    """The trials of a confirmed search, or of arms that tune several keys, apart for each data set.

    Empty where a single key was tuned, whose curves stand on the page already.
    """
    fresh = {run.folder for arm in sweep.arms for run in arm.fresh}
    if not sweep.confirm and all(len(arm.space) < 2 for arm in sweep.arms):
        return []
    runs = [run for run in find_runs([sweep.folder], comparable=False) if run.folder not in fresh]
    if not any(run.score is not None for run in runs):
        return []
    return [replace(comparison, searched=True) for comparison in compare(runs)]
