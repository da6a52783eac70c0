"""`-m sweep=fair`: every arm tuned alike, then compared on fresh seeds; the same command goes on."""

from collections.abc import Mapping
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from omegaconf import OmegaConf

from normlab.config.arms import Arm, Fair
from normlab.errors import ConfigError
from normlab.folder import lock, writing
from normlab.sweeps.fair.arm_runs import ArmRuns, NextPoint
from normlab.sweeps.fair.folders import Folders
from normlab.sweeps.fair.plan import Plan
from normlab.sweeps.fair.points import points
from normlab.sweeps.fair.pruned import ArmStudy
from normlab.sweeps.fair.record import read_record, write_record
from normlab.sweeps.fair.rehearsals import refusals, runs_here
from normlab.sweeps.fair.run import Run
from normlab.sweeps.fair.tpe import tpe
from normlab.sweeps.fair.watch import FairWatch
from normlab.sweeps.grid import check_place
from normlab.sweeps.launchers.queue import NumberedJob, serve
from normlab.sweeps.study import hand_over
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
        before = read_record(path)
        _check_pruner(fair, before)
        folders = Folders(path)
        plan = Plan(fair, folders, partial(_chooses, fair, folders, before))
        if rehearse is None or plan.next() is None or not runs_here(self.engine):
            return plan
        refused = refusals(fair, rehearse, path)
        folders = Folders(path)
        return Plan(fair, folders, partial(_chooses, fair, folders, before), refused) if refused else plan

    def _run(self, path: Path, plan: Plan, watch: FairWatch) -> None:
        """Runs what is planned, and what is planned as runs end; a free worker takes the next run."""

        def next_job() -> NumberedJob | None:
            run = plan.next()
            if run is None:
                return None
            if (study := _study(path, plan.arm_of(run), run)) is not None:
                study.begin(run)
            else:
                hand_over(path, run.number, pruned=False)
            run.begun = True
            write_record(path, plan.as_record())
            watch.follow()
            return NumberedJob(run.number, run.job.overrides)

        def ended(number: int, returned: JobReturn) -> None:
            watch.failed(number, returned)
            run = plan.runs[number]
            arm = plan.ended(run)
            if (study := _study(path, arm, run)) is not None:
                study.end(run)
            write_record(path, plan.as_record())
            watch.follow()
            watch.tell(arm)

        serve(self.engine, next_job, ended)


def _chooses(fair: Fair, folders: Folders, before: dict[str, Any], arm: Arm) -> NextPoint:
    """What chooses the points of an arm. before: what fair.json said as this began."""
    if fair.sampler == "tpe":
        return tpe(arm, _earlier(fair, folders, before, arm))
    rest = points(arm.space)
    return lambda trials: next(rest, None)  # that of trial k depends on no result


def _earlier(fair: Fair, folders: Folders, before: dict[str, Any], arm: Arm) -> list[dict[str, Any]]:
    """The points of the trials that an earlier start of this command has begun."""
    trials = [trial for each in before.get("arms", []) if each["settings"] == arm.settings for trial in each["trials"]]
    known = [trial["point"] for trial in trials if trial["point"].keys() == arm.space.keys()]
    return [*takewhile(lambda point: folders.knows(fair.trial(arm, point)), known)]


def _study(path: Path, arm: ArmRuns, run: Run) -> ArmStudy | None:
    """The study by which a run may be pruned; None for a fresh run, and without a pruner."""
    pruner = arm.fair.pruner
    return None if pruner is None or run not in arm.trials else ArmStudy(path, arm.arm, pruner)


def _check_pruner(fair: Fair, before: dict[str, Any]) -> None:
    """Raises ConfigError where the trials that are there were pruned by another rule than those to come."""
    if (there := before.get("pruner", fair.pruner_name)) != fair.pruner_name:
        raise ConfigError(
            f"hydra/sweeper/pruner={fair.pruner_name}: the trials that are there had {there}, and one rule has to hold "
            "for all; choose another name="
        )
