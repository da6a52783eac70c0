"""About a laboratory's sweep: what was asked, when and on what machine."""

from normlab.report import facts
from normlab.report.claims.findings import Laboratory
from normlab.report.fair.space import only_key, within
from normlab.report.fair.sweep import FairSweep
from normlab.report.wording import counted


def about(lab: Laboratory) -> list[tuple[str, str]]:
    """(name, value) pairs for the page; what is not known is left out."""
    sweep, runs = lab.sweep, lab.sweep.runs
    served = {pair.arms[arm] for result in lab.results for pair in result.claim.pairs for arm in pair.arms}
    known = [
        ("form", lab.form),
        ("claims", str(len(lab.results))),
        ("arms", f"{len(served)}, each run once for all claims that it serves" if served else ""),
        ("tuned", _tuned(sweep)),
        ("fresh runs", f"{counted(sweep.seeds, 'seed')} for each arm"),
        ("command", facts.command(sweep.folder) or ""),
        ("tags", facts.tagged(runs)),
        ("runs", facts.counted(runs) if runs else "none"),
        *facts.machine(runs),
    ]
    return [(name, value) for name, value in known if value]


def _tuned(sweep: FairSweep) -> str:
    tuned = [arm for arm in sweep.arms if only_key(arm) is not None]
    spaces = dict.fromkeys(f"{key} {within(key, text)}" for arm in tuned for key, text in arm.space.items())
    fixed = len(sweep.arms) - len(tuned)
    words = [f"{'; '.join(spaces)}: {counted(sweep.trials, 'trial')} for each arm"] if tuned else []
    words += [f"{counted(fixed, 'arm')} with a fixed rate"] if fixed else []
    return "; ".join(words)
