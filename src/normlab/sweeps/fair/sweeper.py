"""`-m sweep=fair`: every arm tuned alike, then compared on fresh seeds; the same command goes on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from omegaconf import OmegaConf

from normlab.config.arms import Arm
from normlab.folder import lock, writing
from normlab.sweeps.fair.arm_runs import NextPoint
from normlab.sweeps.fair.folders import Folders
from normlab.sweeps.fair.plan import Plan
from normlab.sweeps.fair.points import points
from normlab.sweeps.fair.record import write_record
from normlab.sweeps.fair.rehearsals import refusals, runs_here
from normlab.sweeps.fair.watch import FairWatch
from normlab.sweeps.grid import check_place
from normlab.sweeps.launchers.queue import NumberedJob, serve
from normlab.sweeps.sweeper import EngineSweeper


class FairSweeper(EngineSweeper):
    """Tunes each arm with the same budget, and runs the best setting of each again on seeds that tuning never used.

    What it compares was read from the command line before: see config/arms.py. How it stands is fair.json, in the
    sweep's folder. A job is known by its configuration's hash, so that the same command goes on, and one with more
    arms, trials or seeds adds what is new. A run that diverged is an answer and is not run again; one that failed
    otherwise is. Raises ConfigError where the folder holds no such sweep, and SweepError at the end if jobs failed.
    """

    def __init__(self, params: Mapping[str, Any] | None, pruner: Any = None):
        self.params, self.pruner = params, pruner

    def sweep(self, arguments: list[str]) -> None:
        path = Path(self.settings.hydra.sweep.dir)
        check_place(path)
        path.mkdir(parents=True, exist_ok=True)
        with lock.hold(path):
            plan = self._plan(path)
            writing.write_text(path / "multirun.yaml", OmegaConf.to_yaml(self.settings))
            write_record(path, plan.as_record())
            with FairWatch(path, plan) as watch:
                watch.tell_first()
                self._run(path, plan, watch)
        watch.check()

    def _plan(self, path: Path) -> Plan:
        """What is there and what is to be run; arms that cannot be trained have no runs. Raises ConfigError."""
        fair, rehearse = self.loader.fair, self.loader.rehearse
        assert fair is not None
        plan = Plan(fair, Folders(path), _quasi_random)
        if rehearse is None or plan.next() is None or not runs_here(self.engine):
            return plan
        refused = refusals(fair, rehearse, path)
        return Plan(fair, Folders(path), _quasi_random, refused) if refused else plan

    def _run(self, path: Path, plan: Plan, watch: FairWatch) -> None:
        """Runs what is planned, and what is planned as runs end; a free worker takes the next run."""

        def next_job() -> NumberedJob | None:
            run = plan.next()
            if run is None:
                return None
            run.begun = True
            write_record(path, plan.as_record())
            watch.follow()
            return NumberedJob(run.number, run.job.overrides)

        def ended(number: int, returned: JobReturn) -> None:
            watch.failed(number, returned)
            arm = plan.ended(number)
            write_record(path, plan.as_record())
            watch.follow()
            watch.tell(arm)

        serve(self.engine, next_job, ended)


def _quasi_random(arm: Arm) -> NextPoint:
    """The points of an arm in their order; that of trial k depends on no result."""
    rest = points(arm.space)
    return lambda trials: next(rest, None)
