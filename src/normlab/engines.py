"""What the jobs of a sweep are made and run by, Hydra's sweepers and launchers: refusals before the first job."""

from typing import Any

from omegaconf import DictConfig

from normlab import joined
from normlab.checks import check_extra
from normlab.errors import ConfigError
from normlab.fields import check_value
from normlab.space import Numbers, Space

# the extra that brings what an option needs
EXTRAS = {
    "hydra/sweeper=optuna": "optuna",
    "hydra/launcher=joblib": "joblib",
    "hydra/launcher=ray": "ray",
    "hydra/launcher=slurm": "submitit",
    "hydra/launcher=submitit_slurm": "submitit",
    "hydra/launcher=submitit_local": "submitit",
}

# Scores of jobs that differ in them cannot be compared, or they are looked at before there are jobs.
NOT_SEARCHED = ("action", "name", "score", "score_mode")


def check_engine(group: str, option: Any) -> None:
    """Raises ConfigError where a sweeper or launcher is not installed."""
    if (typed := f"{group}={option}") in EXTRAS:
        check_extra(typed, EXTRAS[typed])


def check_search(sweeper: DictConfig, space: Space) -> None:
    """Raises ConfigError for a search that has nothing to search, or a sampler that cannot search it."""
    if not space:
        raise ConfigError(f"{_name(sweeper)}: nothing to search; type key=interval(low,high) or choose sweep=")
    for key in space:
        if key in NOT_SEARCHED or key.startswith("hydra"):
            raise ConfigError(f"{key}={space[key]}: {key} is no setting of the jobs that could be searched")
    if _name(sweeper) != "OptunaSweeper":
        return
    for key in ("n_trials", "n_jobs", "seed"):
        check_value(f"hydra.sweeper.{key}", sweeper[key], sweeper[key])
    sampler = sweeper.sampler
    if not sampler.get("_partial_"):
        raise ConfigError(f"hydra.sweeper.sampler={sampler.get('_target_')}: its yaml needs _partial_: true")
    for key, values in space.items():
        if _name(sampler) == "GridSampler" and isinstance(values, Numbers) and values.step is None:
            raise ConfigError(f"{key}={values}: a grid has no intervals; list values or use range(low,high,step)")


def check_score(config: DictConfig) -> None:
    """Raises ConfigError where a search would not know which end of the score is the good one."""
    if config.score is not None and config.score_mode is None:
        raise ConfigError(f"score={config.score}: for a search set score_mode=max or score_mode=min too")


def check_launcher(launcher: DictConfig, config: DictConfig) -> None:
    """Raises ConfigError where a job asks for other processes than its launcher starts."""
    if "n_jobs" in launcher:
        check_value("hydra.launcher.n_jobs", launcher.n_jobs, launcher.n_jobs)
    tasks, nodes = launcher.get("tasks_per_node", 1), launcher.get("nodes", 1)
    if tasks * nodes == 1:
        joined.check(config)
        return
    if _name(launcher) != "SlurmLauncher":
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


def _name(engine: DictConfig) -> str:
    return str(engine.get("_target_")).rpartition(".")[2]
