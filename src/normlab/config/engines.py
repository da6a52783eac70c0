"""Checks Hydra's sweepers and launchers, which choose and run the jobs of a sweep, before the first job."""

from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from normlab.config.names import check_extra
from normlab.config.objectives import PRUNERS, check_confirmed, check_objectives, check_prunable
from normlab.config.rules import rule
from normlab.config.space import Numbers, Space
from normlab.config.values import check_value
from normlab.distributed import world
from normlab.errors import ConfigError
from normlab.folder.identity import REPLICATES

# The extra that an option needs.
EXTRAS = {
    "hydra/sweeper=optuna": "optuna",
    "hydra/launcher=joblib": "joblib",
    "hydra/launcher=ray": "ray",
    "hydra/launcher=slurm": "submitit",
    "hydra/launcher=submitit_slurm": "submitit",
    "hydra/launcher=submitit_local": "submitit",
}

# Jobs that differ in these have scores that cannot be compared, or the key is read before there are jobs.
NOT_SEARCHED = ("action", "name", "score", "score_mode")


def check_engine(group: str, option: Any) -> None:
    """Raises ConfigError where a sweeper or launcher is not installed."""
    if (typed := f"{group}={option}") in EXTRAS:
        check_extra(typed, EXTRAS[typed])


def is_search(sweeper: DictConfig) -> bool:
    """Whether a sweeper chooses its jobs as it goes; a plain one knows all of them before the first."""
    return _name(sweeper) not in ("BasicSweeper", "GridSweeper")


def check_plain(sweeper: DictConfig) -> None:
    """Raises ConfigError where a plain sweeper's own keys are out of range."""
    _check_values("hydra.sweeper", sweeper, ["max_batch_size"])


def takes_any_folder(sweeper: DictConfig) -> bool:
    """Whether a sweeper finds each job its folder; Hydra's own gives job k the k-th."""
    return _name(sweeper) == "GridSweeper"


def check_search(engines: DictConfig, space: Space) -> None:
    """Raises ConfigError for a search that has nothing to search, or a sampler that cannot search it.

    engines: the part of a sweep's configuration under `hydra`.
    """
    sweeper = engines.sweeper
    if not space:
        raise ConfigError(f"{_name(sweeper)}: nothing to search; type key=interval(low,high) or choose sweep=")
    for key in space:
        if key in REPLICATES:
            raise ConfigError(
                f"{key}={space[key]}: a search would pick the luckiest {key}. Search with one, then sweep the best "
                f"values over several: -m <key=value …> {key}=1,2,3,4,5"
            )
        if key in NOT_SEARCHED or key.startswith("hydra"):
            raise ConfigError(f"{key}={space[key]}: {key} is no setting of the jobs that could be searched")
    if _name(sweeper) != "OptunaSweeper":
        return
    folders = OmegaConf.to_container(engines.sweep, resolve=False)
    if isinstance(folders, dict) and folders["subdir"] != "${hydra.job.num}":
        raise ConfigError(f"hydra.sweep.subdir={folders['subdir']}: trial k of a search has folder k; leave it out")
    _check_values("hydra.sweeper", sweeper, ["n_trials", "n_jobs", "seed", "confirm"])
    check_pruner(sweeper.pruner)
    sampler = sweeper.sampler
    if not sampler.get("_partial_"):
        raise ConfigError(f"hydra.sweeper.sampler={sampler.get('_target_')}: its yaml needs _partial_: true")
    for key, values in space.items():
        if _name(sampler) == "GridSampler" and isinstance(values, Numbers) and values.step is None:
            raise ConfigError(f"{key}={values}: a grid has no intervals; list values or use range(low,high,step)")


def check_pruner(pruner: DictConfig) -> None:
    """Raises ConfigError for a pruner that is none of Optuna's, or whose keys are out of range."""
    _check_values("hydra.sweeper.pruner", pruner, pruner)
    if not str(pruner._target_).startswith(f"{PRUNERS}."):
        raise ConfigError(f"hydra.sweeper.pruner._target_={pruner._target_}: jobs take Optuna's own pruners alone")


def check_sought(sweeper: DictConfig, config: DictConfig) -> None:
    """Raises ConfigError where a job would not measure a search's objectives, or not say which direction is better."""
    if config.score is not None and config.score_mode is None:
        raise ConfigError(f"score={config.score}: for a search set score_mode=max or score_mode=min too")
    if _name(sweeper) != "OptunaSweeper":
        return
    check_objectives(sweeper.objectives, config.task.metrics)
    if sweeper.confirm is not None:
        check_confirmed(sweeper.objectives, sweeper.confirm, config.seed)
    if (pruner := _name(sweeper.pruner)) != "NopPruner":
        check_prunable(sweeper.objectives, pruner)


def check_launcher(launcher: DictConfig, config: DictConfig) -> None:
    """Raises ConfigError where a job asks for other processes than its launcher starts."""
    _check_values("hydra.launcher", launcher, [key for key in ("n_jobs",) if key in launcher])
    tasks, nodes = launcher.get("tasks_per_node", 1), launcher.get("nodes", 1)
    if tasks * nodes == 1:
        world.check(config)
        return
    if launcher.get("cluster") != "slurm":
        raise ConfigError(
            f"hydra.launcher.tasks_per_node={tasks}: outside of SLURM they would be runs apart; set 1 and "
            f"trainer.devices={tasks}"
        )
    devices, machines = config.trainer.devices, config.trainer.num_nodes
    if devices not in ("auto", tasks) or machines not in ("auto", nodes):
        raise ConfigError(
            f"trainer.devices={devices}, trainer.num_nodes={machines}: hydra.launcher.tasks_per_node={tasks} and "
            f"hydra.launcher.nodes={nodes} start {tasks} on each of {nodes}; trainer=slurm takes them"
        )


def _check_values(path: str, part: DictConfig, keys: Iterable[Any]) -> None:
    """Raises ConfigError where one of these keys of a part, which stands at `path`, breaks its rule."""
    for key in keys:
        check_value(f"{path}.{key}", part[key], part[key], rule(f"{path}.{key}", part.get("_target_")))


def _name(engine: DictConfig) -> str:
    return str(engine.get("_target_")).rpartition(".")[2]
