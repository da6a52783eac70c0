"""Metrics by name or by class: any of torchmetrics' that fits a task."""

import inspect
from collections.abc import Callable, Mapping
from types import ModuleType

from torch import Tensor
from torchmetrics import Metric

from normlab.config.metrics import small
from normlab.errors import did_you_mean

Entry = str | Callable[..., Metric]  # a name, or a class with the keys that were typed for it


def named_metrics(module: ModuleType, prefix: str = "") -> dict[str, Callable[..., Metric]]:
    """The metrics of a module of torchmetrics whose classes begin with `prefix`, by their names in small letters."""
    classes = {name: getattr(module, name) for name in module.__all__ if name.startswith(prefix)}
    return {small(name): kind for name, kind in classes.items() if isinstance(kind, type) and issubclass(kind, Metric)}


def make_metric(
    entry: Entry,
    ours: Mapping[str, Callable[[], Metric]],
    others: Mapping[str, Callable[..., Metric]],
    facts: Mapping[str, object],
) -> tuple[str, Metric]:
    """A metric and its name. ours: those of a task. others: torchmetrics'; facts: arguments for those that take them.

    Raises ValueError for an unknown name, and for a class that needs more than it is given.
    """
    if isinstance(entry, str) and entry in ours:
        return entry, ours[entry]()
    if isinstance(entry, str) and entry not in others:
        nearest = did_you_mean(entry, [*ours, *others])
        raise ValueError(
            f"task.metrics: {entry} is no metric of this task{nearest} (metrics: {', '.join(ours)}, and torchmetrics' "
            f"{', '.join(sorted(others))})"
        )
    make = others[entry] if isinstance(entry, str) else entry
    kind = getattr(make, "func", make)
    if not (isinstance(kind, type) and issubclass(kind, Metric)):
        raise ValueError(f"task.metrics: {kind} is no class of torchmetrics.Metric")
    taken = inspect.signature(make).parameters
    arguments = {k: v for k, v in facts.items() if k in taken and taken[k].default in (taken[k].empty, None, True, 1)}
    needed = [k for k, p in taken.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    if missing := [name for name in needed if name not in arguments]:
        raise ValueError(
            f"task.metrics: {kind.__name__} needs {', '.join(missing)}: write it as "
            f"{{_target_: {kind.__module__}.{kind.__name__}, {missing[0]}: …}}"
        )
    return small(kind.__name__), make(**arguments)


def is_scalar(name: str, metric: Metric, prediction: Tensor, target: Tensor) -> bool:
    """Whether a metric is a single number, seen on a trial. Raises ValueError where it cannot take the trial."""
    trial = metric.clone()
    try:
        trial.update(prediction, target)
        value = trial.compute()
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ValueError(f"task.metrics: {name} cannot measure this task: {error}") from error
    if not isinstance(value, Tensor):
        raise ValueError(f"task.metrics: {name} gives a {type(value).__name__}; expected a number or a table")
    return value.numel() == 1
