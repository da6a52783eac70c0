"""`hydra/sweeper=optuna`: Optuna chooses the values of each job; the same command with the same name goes on."""

import logging
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from normlab.config.objectives import direction, values
from normlab.config.space import Space, grid, search_space
from normlab.errors import ConfigError, LostJobError
from normlab.folder import files, lock, place, reuse
from normlab.folder.files import known_result
from normlab.folder.identity import numbers
from normlab.sweeps.fair.confirm import Confirmation, Search, fresh_numbers
from normlab.sweeps.launchers.queue import NumberedJob, serve
from normlab.sweeps.study import distribution, given, hand_over, open_study, summary
from normlab.sweeps.sweeper import EngineSweeper
from normlab.sweeps.watch import Watch

if TYPE_CHECKING:  # Optuna is an extra
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

log = logging.getLogger(__name__)

N_TRIALS = 20  # used where n_trials is null


class OptunaSweeper(EngineSweeper):
    """Searches the space of the command line and of `hydra.sweeper.params` for the best objectives.

    sampler: one of Optuna's, without its seed. pruner: one of Optuna's, which each job makes anew; NopPruner prunes
    nothing. objectives: what is raised or lowered, see config/objectives.py. seed: each trial is drawn with a seed of
    its own, made from this one and its number, so a sweep that was stopped goes on as if it had not been. n_trials:
    how many; None: 20, or for a grid all. n_jobs: how many run at a time. As one ends, the values of the next are
    chosen without the objectives of those that run; with one at a time the same ones are chosen each time. confirm: on
    how many fresh seeds the best trials are run again; None: they are not.

    The study is `study.db`, an SQLite file in the sweep's folder, and job k is its trial k. A trial that was
    interrupted, or whose process was killed, is run again in its folder. A trial that failed or was pruned counts. A
    trial that was refused before training does not count, for up to n_trials of them. Raises ConfigError where the
    folder holds another sweep, and SweepError at the end if jobs failed, in this start or before.
    """

    def __init__(
        self,
        sampler: "partial[BaseSampler]",
        pruner: "BasePruner",
        objectives: list[str],
        seed: int,
        n_trials: int | None,
        n_jobs: int,
        params: DictConfig | None,
        confirm: int | None = None,
    ):
        self.make_sampler, self.prunes, self.objectives = sampler, type(pruner).__name__ != "NopPruner", [*objectives]
        self.seed, self.n_trials, self.n_jobs, self.params = seed, n_trials, n_jobs, params
        self.confirm = confirm

    def sweep(self, arguments: list[str]) -> None:
        fixed, space = search_space(arguments, self.params, self.loader)
        path = self._path()
        if (
            path.exists()
            and not (path / "study.db").is_file()
            and {entry.name for entry in path.iterdir()} - {".lock", ".owner"}
        ):
            raise ConfigError(f"{place.shown(path)} exists and holds no search; choose another name=")
        path.mkdir(parents=True, exist_ok=True)
        with lock.hold(path):
            study = self._study(space)
            self.fresh = fresh_numbers(path, study)  # of an earlier start, which ran the best trials again
            OmegaConf.save(self.settings, path / "multirun.yaml")
            with Watch(path, self._total(space) + len(self.fresh), space) as watch:
                failed = self._run(study, fixed, space, watch)
                confirmation = self._confirmation(study, fixed, space)
                failed += [] if confirmation is None else confirmation.run(self.engine, watch, self.n_jobs)
        if confirmation is not None and confirmation.is_over:
            log.info(confirmation.summary())
        if failed := sorted({*failed, *self._failed_before(study, space)}):
            raise watch.error(failed)
        if not (best := summary(study, self.objectives)):
            sought = " and ".join(self.objectives)
            raise ConfigError(f"no job in {place.shown(path)} has reached a {sought}; nothing is known about the space")
        if confirmation is None:  # else the fresh runs say which is the best
            log.info(best)

    def _confirmation(self, study: "Study", fixed: list[str], space: Space) -> Confirmation | None:
        """The fresh runs of the best trials; None where none are wanted, and before all trials have ended."""
        from optuna.trial import TrialState

        states = {trial.state for trial in study.get_trials(deepcopy=False)}
        if self.confirm is None or TrialState.RUNNING in states or TrialState.COMPLETE not in states:
            return None
        (objective,) = self.objectives
        search = Search(self._path(), self.settings, fixed, space, objective, self.loader.source)
        return Confirmation(search, study, self.confirm)

    def _path(self) -> Path:
        return Path(self.settings.hydra.sweep.dir)

    def _study(self, space: Space) -> "Study":
        """The study in the sweep's folder, new or gone on with. Raises ConfigError for another sweep's."""
        study = open_study(self._path(), [direction(name, self.settings.score_mode) for name in self.objectives])
        wanted = self._identity(space)
        saved = study.user_attrs.get("sweep", wanted)  # a new study has none
        if lines := reuse.differences(saved, wanted):
            where = place.shown(self._path())
            raise ConfigError("\n".join([f"{where} holds another sweep; choose another name=", *lines]))
        pruner = OmegaConf.to_container(self.settings.hydra.sweeper.pruner, resolve=True)
        for name, value in {"sweep": wanted, "objectives": self.objectives, "pruner": pruner}.items():
            study.set_user_attr(name, value)
        return study

    def _identity(self, space: Space) -> dict[str, Any]:
        """What must not change between two starts: the jobs' common configuration, the space and the objectives."""
        own = OmegaConf.masked_copy(self.settings, [str(key) for key in self.settings if key != "hydra"])
        searched = {key: str(values) for key, values in space.items()}
        sought = {"score": own.score, "score_mode": own.score_mode, "objectives": self.objectives}
        return numbers(own) | searched | sought | {"grid": self._is_grid()}

    def _is_grid(self) -> bool:
        """Whether combinations are taken in turn, which is done here: Optuna's GridSampler needs Optuna's own loop."""
        return self.make_sampler.func.__name__ == "GridSampler"

    def _run(self, study: "Study", fixed: list[str], space: Space, watch: Watch) -> list[int]:
        """Runs the trials, those first that were interrupted, and returns the jobs that failed."""
        interrupted = iter(self._interrupted(study, space))
        failed = []

        def next_job() -> NumberedJob | None:
            trial = next(interrupted, None) or self._new(study, space, watch)
            if trial is None:
                return None
            hand_over(self._path(), trial.number, self.prunes)
            return NumberedJob(trial.number, (*fixed, *(f"{key}={value}" for key, value in trial.params.items())))

        def ended(number: int, returned: JobReturn) -> None:
            self._tell(study, number, returned)
            if watch.failed(number, returned):
                failed.append(number)

        serve(self.engine, next_job, ended, self.n_jobs)
        return failed

    def _interrupted(self, study: "Study", space: Space) -> "list[FrozenTrial]":
        """The trials that an earlier start has begun and not ended."""
        from optuna.trial import TrialState

        interrupted = []
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            if trial.params.keys() == space.keys():
                interrupted.append(trial)
            else:  # the trial was interrupted before all of its values were chosen
                study.tell(trial.number, state=TrialState.FAIL)
        return interrupted

    def _new(self, study: "Study", space: Space, watch: Watch) -> "Trial | None":
        """The next trial; None while there are as many as there shall be."""
        total = self._total(space)
        most = len(grid(space)) if self._is_grid() else 2 * total
        begun = sum(trial.params.keys() == space.keys() for trial in study.get_trials(deepcopy=False))
        end = min(total + self._refused(study), most)  # a trial that could not be trained makes room for another
        watch.total = max(watch.total, end + len(self.fresh))
        return self._ask(study, space, begun) if begun < end else None

    def _refused(self, study: "Study") -> int:
        """How many trials were refused before training, as for a ghost size above the batch."""
        from optuna.trial import TrialState

        failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        results = [files.read_result(self._path() / str(trial.number)) for trial in failed if trial.params]
        return sum(result.get("status") == "refused" for result in results)

    def _failed_before(self, study: "Study", space: Space) -> list[int]:
        """The trials that failed, in this start or an earlier one, and so were not run again."""
        from optuna.trial import TrialState

        failed = [t.number for t in study.get_trials(states=(TrialState.FAIL,)) if t.params.keys() == space.keys()]
        # A job that finished without a score is a failed trial, but no failed job.
        return [
            number for number in failed if files.read_result(self._path() / str(number)).get("status") != "finished"
        ]

    def _total(self, space: Space) -> int:
        """How many trials the search will have."""
        return int(min(self.n_trials or math.inf, len(grid(space)))) if self._is_grid() else self.n_trials or N_TRIALS

    def _ask(self, study: "Study", space: Space, position: int) -> "Trial":
        """A new trial. position: how many trials with values went before it."""
        import numpy as np
        from optuna.trial import TrialState

        while len(study.get_trials(deepcopy=False)) in self.fresh:  # a trial of that number would share its folder
            study.tell(study.ask(), state=TrialState.FAIL)
        if self._is_grid():
            study.sampler = given(grid(space)[position])
        else:
            own = np.random.SeedSequence([self.seed, position]).generate_state(1)
            study.sampler = self.make_sampler(seed=int(own[0]))
        return study.ask({key: distribution(values) for key, values in space.items()})

    def _tell(self, study: "Study", number: int, returned: JobReturn) -> None:
        """Tells the study what has become of a trial."""
        from optuna.trial import TrialState

        if isinstance(returned._return_value, LostJobError):  # .return_value would raise it
            return  # the trial stays open, as one that was interrupted
        result = known_result(self._path() / str(number)) if returned.status == JobStatus.COMPLETED else {}
        if result.get("status") == "pruned":
            study.tell(number, state=TrialState.PRUNED)
        elif result and (reached := values(result, self.objectives)):
            study.tell(number, reached)
        else:
            study.tell(number, state=TrialState.FAIL)
