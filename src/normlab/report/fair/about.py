"""About a fair sweep: what was asked, when and on what machine."""

from collections.abc import Sequence

from normlab.report import facts
from normlab.report.fair.space import within
from normlab.report.fair.standing import Contest, differing
from normlab.report.fair.sweep import FairSweep
from normlab.report.settings import common, spelled
from normlab.report.wording import counted, number

UNITS = {"seed": "seed", "data.split_seed": "split", "data.fold": "fold"}


def about(sweep: FairSweep, contests: Sequence[Contest]) -> list[tuple[str, str]]:
    """(name, value) pairs for the page; what is not known is left out."""
    runs, fresh = sweep.runs, [run for arm in sweep.arms for run in arm.fresh]
    varied = {*differing([arm.settings for arm in sweep.arms]), *(key for arm in sweep.arms for key in arm.space)}
    known = [
        ("arms", _arms(sweep)),
        ("tuned", _tuned(sweep)),
        ("fresh runs", f"{counted(sweep.seeds, UNITS.get(sweep.over, sweep.over))} for each arm"),
        ("fixed", spelled(fixed) if fresh and (fixed := common(fresh, [*varied])) else ""),
        ("command", facts.command(sweep.folder) or ""),
        ("tags", facts.tagged(runs)),
        ("runs", facts.counted(runs)),
        ("always one class", "; ".join(filter(None, (facts.majority(each.comparison) for each in contests)))),
        *facts.machine(runs),
    ]
    return [(name, value) for name, value in known if value]


def _arms(sweep: FairSweep) -> str:
    keys = differing([arm.settings for arm in sweep.arms])
    values = {key: dict.fromkeys(arm.settings[key] for arm in sweep.arms if key in arm.settings) for key in keys}
    return "; ".join(f"{key}: {', '.join(own)}" for key, own in values.items())


def _tuned(sweep: FairSweep) -> str:
    spaces: dict[str, list[str]] = {}
    for arm in sweep.arms:
        for key, text in arm.space.items():
            spaces.setdefault(f"{key} {within(key, text)}", []).append(arm.name)
    whole = len(sweep.arms)
    parts = [each if len(arms) == whole else f"{each} ({', '.join(arms)})" for each, arms in spaces.items()]
    by_time = sweep.budget == "seconds"
    budget = f"{number(sweep.seconds, 0)} training seconds" if by_time else counted(sweep.trials, "trial")
    how = f"sampler {sweep.sampler.replace('_', '-')}"
    how += f", pruner {sweep.pruner}" if sweep.pruner != "none" else ""
    return f"{'; '.join(parts)}: {budget} for each arm, {how}"
