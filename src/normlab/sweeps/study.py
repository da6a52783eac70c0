"""The study of a search, an SQLite file: begun by the sweeper, and told of each epoch by the jobs of a pruned one."""

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

if TYPE_CHECKING:  # it is an extra
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


def open_study(path: Path, directions: Sequence[Literal["minimize", "maximize"]]) -> "Study":
    """The study in a sweep's folder, begun there or gone on with."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=_storage(path / FILE), study_name="study", directions=directions, load_if_exists=True
    )


def hand_over(path: Path, number: int, pruned: bool) -> None:
    """Lets job `number` of the sweep in `path` know its trial, where trials are pruned.

    By a file in the job's folder, which reaches it however it is launched, and each of its processes, and it still
    does where a person goes on with the job by hand.
    """
    file = path / str(number) / HANDED_OVER
    if not pruned:
        file.unlink(missing_ok=True)  # an earlier start may have left it
        return
    file.parent.mkdir(exist_ok=True)
    write_text(file, json.dumps({"study": f"../{FILE}", "trial": number}) + "\n")


def handed_over(run_folder: Path) -> bool:
    """Whether a run may be pruned."""
    return (run_folder / HANDED_OVER).is_file()


def load_trial(run_folder: Path) -> "Trial | None":
    """The trial of a run that was handed over, with the study's pruner; None where it is over already."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    told = json.loads((run_folder / HANDED_OVER).read_text())
    study = optuna.load_study(study_name="study", storage=_storage(run_folder / told["study"], new=False))
    study.pruner = _pruner(study.user_attrs["pruner"])
    found = study.get_trials(deepcopy=False)[told["trial"]]
    return None if found.state.is_finished() else optuna.Trial(study, found._trial_id)


def summary(study: "Study", objectives: Sequence[str]) -> str:
    """The best trial, or of several objectives those on the Pareto front; empty where none came to its end."""
    from optuna.trial import TrialState

    ended = Counter(trial.state for trial in study.trials)
    if not ended[TrialState.COMPLETE]:
        return ""
    others = [f"{ended[state]} {state.name.lower()}" for state in (TrialState.PRUNED, TrialState.FAIL) if ended[state]]
    of_all = ", ".join([f"of {len(study.trials)} jobs", *others])
    if len(objectives) == 1:
        return f"best {of_all}: {_line(study.best_trial, objectives)}"
    return "\n".join([f"Pareto front {of_all}:", *(f"  {_line(trial, objectives)}" for trial in study.best_trials)])


def given(chosen: dict[str, Any]) -> "BaseSampler":
    """A sampler of these very values."""
    from optuna.samplers import RandomSampler

    class Given(RandomSampler):
        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            return chosen[param_name]

    return Given()


def distribution(values: Choices | Numbers) -> "BaseDistribution":
    """What Optuna draws a key's values from."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, Choices):
        return CategoricalDistribution(values.values)
    if isinstance(values.low, int):
        return IntDistribution(values.low, int(values.high), log=values.log, step=int(values.step or 1))
    return FloatDistribution(values.low, values.high, log=values.log, step=values.step)


def _line(trial: "FrozenTrial", objectives: Sequence[str]) -> str:
    """A trial's number, what it has reached, and with which values."""
    reached = [f"{name} {value:.4g}" for name, value in zip(objectives, trial.values, strict=True)]
    return ", ".join([str(trial.number), *reached, *(f"{key}={value}" for key, value in trial.params.items())])


def _pruner(told: dict[str, Any]) -> "BasePruner":
    """The study's pruner. Raises ConfigError for what is none of Optuna's: a study may come from anybody."""
    import optuna

    known = [f"{PRUNERS}.{name}" for name in optuna.pruners.__all__]
    for key, target in targets(told):
        if target not in known:
            raise ConfigError(f"{FILE}: {f'pruner.{key}'.removesuffix('.')}._target_={target} is no pruner of Optuna's")
    return instantiate(told)


def _storage(file: Path, new: bool = True) -> "RDBStorage":
    """new: whether it may have no tables yet, or those of another Optuna, which takes a while to look for."""
    from optuna.storages import RDBStorage

    return RDBStorage(
        f"sqlite:///{file.absolute()}",
        engine_kwargs={"connect_args": {"timeout": PATIENCE}},
        skip_compatibility_check=not new,
        skip_table_creation=not new,
    )
