"""The study of a search, an SQLite file that the sweeper begins; where trials are pruned, jobs report each epoch."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hydra.utils import instantiate

from normlab.config.space import Choices, Numbers
from normlab.config.trust import targets
from normlab.errors import ConfigError
from normlab.folder.writing import write_text

if TYPE_CHECKING:  # Optuna is an extra
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial
from normlab.config.objectives import PRUNERS

FILE = "study.db"

HANDED_OVER = "trial.json"  # in the folder of a job that may be pruned: which trial it is

PATIENCE = 60  # seconds that a process waits while others write


def open_study(path: Path, directions: Sequence[Literal["minimize", "maximize"]], file: str = FILE) -> "Study":
    """The study in a file of a sweep's folder: the one that is there, or a new one."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=_storage(path / file), study_name="study", directions=directions, load_if_exists=True
    )


def hand_over(path: Path, number: int, pruned: bool, trial: int | None = None, study: str = FILE) -> None:
    """Tells job `number` of the sweep in `path` which trial it is, where trials are pruned.

    trial: its number in the study; None: the job's own. study: that study's file.

    A file in the job's folder tells it: that reaches every process of the job with every launcher, and also a person
    who goes on with the job by hand.
    """
    file = path / str(number) / HANDED_OVER
    if not pruned:
        file.unlink(missing_ok=True)  # an earlier start may have left it
        return
    file.parent.mkdir(exist_ok=True)
    write_text(file, json.dumps({"study": f"../{study}", "trial": number if trial is None else trial}) + "\n")


def trial_of(run_folder: Path, study: str) -> int | None:
    """The number of the trial that a run is in the study of a file; None for one that is none of its trials."""
    address = json.loads((run_folder / HANDED_OVER).read_text()) if handed_over(run_folder) else {}
    return address["trial"] if address.get("study") == f"../{study}" else None


def handed_over(run_folder: Path) -> bool:
    """Whether a run may be pruned."""
    return (run_folder / HANDED_OVER).is_file()


def load_trial(run_folder: Path) -> "Trial | None":
    """The trial of a run that may be pruned, with the study's pruner; None where the trial is already over."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    address = json.loads((run_folder / HANDED_OVER).read_text())
    study = optuna.load_study(study_name="study", storage=_storage(run_folder / address["study"], new=False))
    study.pruner = _pruner(study.user_attrs["pruner"])
    trial = study.get_trials(deepcopy=False)[address["trial"]]
    return None if trial.state.is_finished() else optuna.Trial(study, trial._trial_id)


def summary(study: "Study", objectives: Sequence[str]) -> str:
    """The best trial in words, or with several objectives the Pareto front; empty where no trial was completed."""
    from optuna.trial import TrialState

    begun = [trial for trial in study.trials if trial.params]  # others had no values yet when the search was stopped
    ended = Counter(trial.state for trial in begun)
    if not ended[TrialState.COMPLETE]:
        return ""
    others = [f"{ended[state]} {state.name.lower()}" for state in (TrialState.PRUNED, TrialState.FAIL) if ended[state]]
    of_all = ", ".join([f"of {len(begun)} jobs", *others])
    if len(objectives) == 1:
        return f"best {of_all}: {_line(study.best_trial, objectives)}"
    return "\n".join([f"Pareto front {of_all}:", *(f"  {_line(trial, objectives)}" for trial in study.best_trials)])


def given(chosen: dict[str, Any]) -> "BaseSampler":
    """A sampler that chooses exactly these values."""
    from optuna.samplers import RandomSampler

    class Given(RandomSampler):
        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            return chosen[param_name]

    return Given()


def distribution(values: Choices | Numbers) -> "BaseDistribution":
    """The distribution from which Optuna draws a key's values."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, Choices):
        return CategoricalDistribution(values.values)
    if isinstance(values.low, int):
        return IntDistribution(values.low, int(values.high), log=values.log, step=int(values.step or 1))
    return FloatDistribution(values.low, values.high, log=values.log, step=values.step)


def _line(trial: "FrozenTrial", objectives: Sequence[str]) -> str:
    """A trial's number, the objectives that it reached, and its values."""
    reached = [f"{name} {value:.4g}" for name, value in zip(objectives, trial.values, strict=True)]
    return ", ".join([str(trial.number), *reached, *(f"{key}={value}" for key, value in trial.params.items())])


def _pruner(node: dict[str, Any]) -> "BasePruner":
    """The study's pruner. Raises ConfigError for a class that is no pruner of Optuna's: a study may be anybody's."""
    import optuna

    known = [f"{PRUNERS}.{name}" for name in optuna.pruners.__all__]
    for key, target in targets(node):
        if target not in known:
            raise ConfigError(f"{FILE}: {f'pruner.{key}'.removesuffix('.')}._target_={target} is no pruner of Optuna's")
    return instantiate(node)


def _storage(file: Path, new: bool = True) -> "RDBStorage":
    """new: whether to look for missing tables, or for those of another version of Optuna, which takes a while."""
    from optuna.storages import RDBStorage

    return RDBStorage(
        f"sqlite:///{file.absolute()}",
        engine_kwargs={"connect_args": {"timeout": PATIENCE}},
        skip_compatibility_check=not new,
        skip_table_creation=not new,
    )
