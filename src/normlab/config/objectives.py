"""The objectives of a search: facts of each job's result.json that it raises or lowers. Needs no torch or Optuna."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from normlab.config.metrics import measured
from normlab.errors import ConfigError, did_you_mean

if TYPE_CHECKING:  # it is an extra
    pass

FACTS = ("score", "seconds", "parameters")  # keys of result.json; all others are metrics of a part of the data

PARTS = ("train", "val", "test")

LARGEST_SEED = 2**32 - 1

RAISED = ("acc", "f1", "auroc", "r2")

LOWERED = ("seconds", "parameters", "loss", "mse", "mae")  # a lower value is better


def direction(objective: str, score_mode: str | None) -> Literal["minimize", "maximize"]:
    """The better direction, in Optuna's words. score_mode: the score's; None: higher is better, as in every task."""
    if objective == "score":
        return "minimize" if score_mode == "min" else "maximize"
    return "minimize" if objective.rpartition("/")[2] in LOWERED else "maximize"


def values(result: dict[str, Any], objectives: Iterable[str]) -> list[float] | None:
    """What a finished job has reached, from its result.json; None where that is not finite.

    Raises ConfigError for a metric that the job did not measure.
    """
    reached = result["metrics"] | {fact: result[fact] for fact in FACTS}
    for name in objectives:
        if name not in reached:
            measured = ", ".join(result["metrics"])
            raise ConfigError(f"hydra.sweeper.objectives: {name} is not among what the jobs measure ({measured})")
    values = [reached[name] for name in objectives]
    return values if all(value is not None and math.isfinite(value) for value in values) else None


def check_objectives(objectives: Any, metrics: Sequence[str] | None) -> None:
    """Raises ConfigError for objectives that no job will have. metrics: task.metrics; None: the task's own."""
    if isinstance(objectives, str) or not isinstance(objectives, Sequence) or not objectives:
        raise ConfigError(f"hydra.sweeper.objectives={objectives}: expected a list, such as [score] or [score,seconds]")
    if len(set(objectives)) < len(objectives):
        raise ConfigError(f"hydra.sweeper.objectives={objectives}: each one once")
    names = measured(metrics)
    known = [*FACTS, *(f"{part}/{name}" for part in PARTS for name in names)]
    for objective in objectives:
        if objective not in known:
            raise ConfigError(
                f"hydra.sweeper.objectives: no objective {objective}{did_you_mean(str(objective), known)} (objectives: "
                f"{', '.join(FACTS)}, or {', '.join(PARTS)} with /{', /'.join(names)}; task.metrics= adds others)"
            )
        if (name := objective.rpartition("/")[2]) not in (*FACTS, *LOWERED, *RAISED):
            raise ConfigError(
                f"hydra.sweeper.objectives: whether more or less {name} is better is not known; seek score, with "
                f"score=val/{name} and score_mode=max or min"
            )


def check_prunable(objectives: Sequence[str], pruner: str) -> None:
    """Raises ConfigError where a pruner would not learn of what is sought at the end of each epoch."""
    none = "hydra/sweeper/pruner=none"
    if len(objectives) > 1:
        raise ConfigError(f"{pruner} compares one objective, and there are {', '.join(objectives)}: add {none}")
    (objective,) = objectives
    if objective != "score" and not objective.startswith("val/"):
        raise ConfigError(
            f"{pruner} looks at each epoch, and {objective} is known at the end: add {none}, or seek val/"
        )


def check_confirmed(objectives: Sequence[str], seeds: int, seed: int) -> None:
    """Raises ConfigError where the best trials cannot be run again with so many seeds. seed: that of the jobs."""
    if len(objectives) > 1:
        raise ConfigError(
            f"hydra.sweeper.confirm={seeds} runs the best three again, and with {' and '.join(objectives)} none is the "
            "best: seek one objective, or leave out confirm"
        )
    if objectives[0].startswith("test/"):
        raise ConfigError(
            f"hydra.sweeper.confirm={seeds} compares scores on the test part, and {objectives[0]} has the search "
            "look at it: seek score or a metric of val/"
        )
    if seed + seeds > LARGEST_SEED:
        raise ConfigError(
            f"seed={seed}: hydra.sweeper.confirm={seeds} takes the {seeds} seeds above it, and {LARGEST_SEED} is the "
            f"largest; lower seed"
        )


PRUNERS = "optuna.pruners"
