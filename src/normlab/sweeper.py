"""`hydra/sweeper=optuna`: Optuna chooses the values of each job; the same command with the same name goes on."""

import logging
import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from normlab import folder
from normlab.errors import ConfigError
from normlab.grid import GridSweeper
from normlab.identity import numbers
from normlab.space import Choices, Numbers, Space, grid, search_space
from normlab.watch import Watch

if TYPE_CHECKING:  # it is an extra
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

log = logging.getLogger(__name__)

N_TRIALS = 20  # where nobody says how many


class OptunaSweeper(Sweeper):
    """Searches the space of the command line and of `hydra.sweeper.params` for the best score.

    sampler: one of Optuna's, without its seed. seed: each trial is drawn with a seed of its own, made of this one and
    its number, so that a sweep that was stopped goes on as if it had not been. n_trials: how many; None: 20, of a grid
    all. n_jobs: how many are launched together; their values are chosen without each other's score.

    The study is `study.db`, an SQLite file in the sweep's folder, and job k is its trial k. A trial that was
    interrupted is run again, in its folder; one that failed counts. Raises ConfigError where the folder holds another
    sweep, and SweepError at the end if jobs failed.
    """

    def __init__(
        self,
        sampler: "partial[BaseSampler]",
        seed: int,
        n_trials: int | None,
        n_jobs: int,
        params: DictConfig | None,
    ):
        self.make_sampler, self.seed, self.n_trials, self.n_jobs, self.params = sampler, seed, n_trials, n_jobs, params
        self.settings: DictConfig
        self.engine: Launcher
        self.loader: ConfigLoader

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.settings, self.loader = config, hydra_context.config_loader
        self.engine = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        fixed, space = search_space(arguments, self.params, self.loader)
        path = Path(self.settings.hydra.sweep.dir)
        if path.exists() and not (path / "study.db").is_file() and {entry.name for entry in path.iterdir()} - {".lock"}:
            raise ConfigError(f"{folder.shown(path)} exists and holds no search; choose another name=")
        path.mkdir(parents=True, exist_ok=True)
        with folder.lock(path):
            study = self._study(path, space)
            OmegaConf.save(self.settings, path / "multirun.yaml")
            with Watch(path, self._total(space), space) as watch:
                batches = self._batches(study, space)
                failed = [number for batch in batches for number in self._launch(study, fixed, batch, watch)]
        if failed:
            raise watch.error(failed)
        if not any(trial.values for trial in study.trials):
            raise ConfigError(f"no job in {folder.shown(path)} has a score; nothing is known about the space")
        best = study.best_trial
        values = ", ".join(f"{key}={value}" for key, value in best.params.items())
        log.info(f"best of {len(study.trials)} jobs: {best.number}, score {best.value:.4g}, {values}")

    def _study(self, path: Path, space: Space) -> "Study":
        """The study in the sweep's folder, begun there or gone on with."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            storage=f"sqlite:///{path.absolute() / 'study.db'}",
            study_name="study",
            direction="minimize" if self.settings.score_mode == "min" else "maximize",
            load_if_exists=True,
        )
        wanted = self._identity(space)
        found = study.user_attrs.get("sweep", wanted)
        if lines := folder.differences(found, wanted):
            raise ConfigError("\n".join([f"{folder.shown(path)} holds another sweep; choose another name=", *lines]))
        study.set_user_attr("sweep", wanted)
        return study

    def _identity(self, space: Space) -> dict[str, Any]:
        """What must not change between two starts: the jobs' common configuration, the space and what is sought."""
        own = OmegaConf.masked_copy(self.settings, [str(key) for key in self.settings if key != "hydra"])
        searched = {key: str(values) for key, values in space.items()}
        return numbers(own) | searched | {"score": own.score, "score_mode": own.score_mode, "grid": self._is_grid()}

    def _is_grid(self) -> bool:
        """Whether each combination is taken in turn: Optuna's own sampler for it works in Optuna's own loop only."""
        return self.make_sampler.func.__name__ == "GridSampler"

    def _batches(self, study: "Study", space: Space) -> Iterator[Sequence["Trial | FrozenTrial"]]:
        """The trials to launch together; those that were interrupted first."""
        from optuna.trial import TrialState

        interrupted = []
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            if trial.params.keys() == space.keys():
                interrupted.append(trial)
            else:  # its values were not chosen yet
                study.tell(trial.number, state=TrialState.FAIL)
        for start in range(0, len(interrupted), self.n_jobs):
            yield interrupted[start : start + self.n_jobs]

        begun = sum(trial.params.keys() == space.keys() for trial in study.trials)
        total = self._total(space)
        while begun < total:
            batch = range(begun, min(begun + self.n_jobs, total))
            yield [self._ask(study, space, position) for position in batch]
            begun += len(batch)

    def _total(self, space: Space) -> int:
        """How many trials there are to be."""
        return int(min(self.n_trials or math.inf, len(grid(space)))) if self._is_grid() else self.n_trials or N_TRIALS

    def _ask(self, study: "Study", space: Space, position: int) -> "Trial":
        """A new trial. position: how many went before it, without those that have no values."""
        import numpy as np

        if self._is_grid():
            study.sampler = _given(grid(space)[position])
        else:
            own = np.random.SeedSequence([self.seed, position]).generate_state(1)
            study.sampler = self.make_sampler(seed=int(own[0]))
        return study.ask({key: _distribution(values) for key, values in space.items()})

    def _launch(
        self, study: "Study", fixed: list[str], batch: Sequence["Trial | FrozenTrial"], watch: Watch
    ) -> list[int]:
        """Runs trials, tells the study of their scores, and returns the jobs that failed."""
        from optuna.trial import TrialState

        first = batch[0].number
        assert [trial.number for trial in batch] == list(range(first, first + len(batch)))
        jobs = [[*fixed, *(f"{key}={value}" for key, value in trial.params.items())] for trial in batch]
        returned = self.engine.launch(jobs, initial_job_idx=first)
        for trial, job in zip(batch, returned, strict=True):
            score = job.return_value if job.status == JobStatus.COMPLETED else None
            if score is None or math.isnan(score):
                study.tell(trial.number, state=TrialState.FAIL)
            else:
                study.tell(trial.number, score)
        return watch.failed([trial.number for trial in batch], returned)


def _given(chosen: dict[str, Any]) -> "BaseSampler":
    """A sampler of these very values."""
    from optuna.samplers import RandomSampler

    class Given(RandomSampler):
        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            return chosen[param_name]

    return Given()


def _distribution(values: Choices | Numbers) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, Choices):
        return CategoricalDistribution(values.values)
    if isinstance(values.low, int):
        return IntDistribution(values.low, int(values.high), log=values.log, step=int(values.step or 1))
    return FloatDistribution(values.low, values.high, log=values.log, step=values.step)


def register() -> None:
    """Makes our sweepers known to Hydra under the names that conf/hydra/sweeper/ has.

    Hydra takes no plugin whose name starts otherwise. It looks into a package hydra_plugins by itself, but finds none
    in an editable installation, and two projects made of this one would overwrite each other's.
    """
    for sweeper in (GridSweeper, OptunaSweeper):
        Plugins.instance().class_name_to_class[f"hydra_plugins.normlab.{sweeper.__name__}"] = sweeper
