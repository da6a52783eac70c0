"""The task of a run: the network with its optimizer, schedule, loss and metrics, as the configuration names them."""

from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from normlab.config.inputs import reads_data
from normlab.config.instantiate import check_given, make_partial
from normlab.config.starting import RATES_OF_PARTS
from normlab.errors import ConfigError
from normlab.runner.trainer import steps_per_call
from normlab.tasks.base import Task
from normlab.tasks.classify import Classify
from normlab.tasks.freezing import FrozenPart
from normlab.tasks.losses import Loss
from normlab.tasks.multilabel import Multilabel
from normlab.tasks.regress import Regress
from normlab.tasks.schedulers import Schedule, constant

OWN_LOSS = "normlab.tasks.losses.own"  # what conf/loss/task.yaml names


def make_task(config: DictConfig, network: nn.Module, data: Any, thawing: FrozenPart | None) -> Task:
    """The task of the kind that the data has. thawing: what of the network trains from a later epoch on."""
    shared = {
        "network": network,
        **_optimizer(config),
        "thawing": thawing,
        "scheduler": _schedule(config),
        "steps_per_execution": steps_per_call(config),
        "metrics": _metrics(config),
        "criterion": _criterion(config),
        "nonfinite": config.nonfinite if config.action == "fit" else "stop",
    }
    if data.task == "classify":
        return Classify(**shared, num_classes=data.out_features, class_weights=_class_weights(config, data))
    if data.task == "multilabel":
        return Multilabel(**shared, num_labels=data.out_features, class_weights=_class_weights(config, data))
    if config.task.class_weights is not None:
        raise ConfigError(f"task.class_weights={config.task.class_weights}: this data has no classes")
    if config.action == "predict" or not reads_data(config):  # the checkpoint has them
        mean, std = torch.zeros(data.out_features), torch.ones(data.out_features)
    else:
        mean, std = data.target_statistics()
    return Regress(**shared, target_mean=mean, target_std=std)


def _optimizer(config: DictConfig) -> dict[str, Any]:
    """The optimizer as a partial, and what stands under it that is ours."""
    plain: Any = OmegaConf.to_container(config.optimizer, resolve=True)
    ours = {key: plain.pop(key, None) for key in RATES_OF_PARTS}
    return {"optimizer": make_partial(DictConfig(plain), "optimizer"), **ours}


def _metrics(config: DictConfig) -> list[Any] | None:
    """The names in task.metrics, and the classes that stand there by `_target_`, with their keys."""
    if config.task.metrics is None:
        return None
    chosen = enumerate(config.task.metrics)
    return [each if isinstance(each, str) else make_partial(each, f"task.metrics.{place}") for place, each in chosen]


def _criterion(config: DictConfig) -> Loss | None:
    """The chosen loss: a function as it is, or what a class makes of its keys; None for the task's own."""
    if config.loss._target_ == OWN_LOSS:
        return None
    if config.task.class_weights is not None:
        raise ConfigError(
            f"task.class_weights={config.task.class_weights} with loss._target_={config.loss._target_}: the weights "
            "are those of loss=task; leave out one of the two"
        )
    loss = make_partial(config.loss, "loss")
    return loss() if isinstance(loss.func, type) else loss


def _schedule(config: DictConfig) -> Schedule:
    if config.action == "lr_find":
        return Schedule(constant, "step")  # the finder raises the rate each step
    check_given(config.scheduler, "scheduler", ("optimizer", "total_steps"))
    plain: Any = OmegaConf.to_container(config.scheduler, resolve=True)
    own = {key: plain.pop(key, None) for key in ("interval", "monitor")}
    schedule = Schedule(make_partial(DictConfig(plain), "scheduler"), **own)
    if schedule.looks:
        check_given(config.scheduler, "scheduler", ("mode",))
        schedule.monitor = schedule.monitor or config.score
    return schedule


def _class_weights(config: DictConfig, data: Any) -> Tensor | None:
    if config.task.class_weights is None or config.action == "predict":
        return None
    counts = data.class_counts()  # (classes,), or of labels (columns, 2)
    return counts.sum(-1, keepdim=True) / (counts.shape[-1] * counts.clamp(min=1))
