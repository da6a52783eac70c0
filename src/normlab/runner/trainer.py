"""The trainer: callbacks, loggers, and how several processes work together."""

import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import LearningRateMonitor, StochasticWeightAveraging
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from normlab.callbacks.epoch_seed import EpochSeed
from normlab.callbacks.merge_statistics import MergeStatistics
from normlab.callbacks.modes import ModeGuard
from normlab.callbacks.prediction_time import PredictionTime
from normlab.callbacks.progress import TrainingProgress
from normlab.callbacks.record import Record
from normlab.callbacks.same_config import SameConfig
from normlab.callbacks.tags import Tags
from normlab.callbacks.thaw import Thaw
from normlab.config.cutting import check_several, cuts
from normlab.config.instantiate import locate, make_node, offer
from normlab.distributed import devices
from normlab.errors import ConfigError
from normlab.folder.files import OUR_TRAINER_KEYS
from normlab.folder.identity import config_hash
from normlab.folder.saving import WholeCheckpoints
from normlab.norms.common.declaration import declaration
from normlab.norms.common.synchronise import Synchronise
from normlab.runner.precision import check_on_cpu
from normlab.sweeps.pruning import Pruning
from normlab.sweeps.study import handed_over
from normlab.tasks.base import Task
from normlab.tasks.scaler import Scaler

# Hooks that Lightning calls for each batch or step; one call for many batches would call them only once.
PER_BATCH = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)

# Keeps DistributedDataParallel from copying the first process's buffers to the others before each forward pass: ours
# agree already, or are merged later. torch 2.15 renamed the argument.
_ddp_parameters = inspect.signature(DistributedDataParallel).parameters
KEPT_BUFFERS: dict[str, Any] = (
    {"forward_sync_buffers": False} if "forward_sync_buffers" in _ddp_parameters else {"broadcast_buffers": False}
)


def stop_probing() -> None:
    """Stops torch from looking for GPUs through NVML, as Lightning asks it to, where there is none.

    Each optimizer step asks whether there is a GPU. Lightning has the question put to NVML, which is loaded anew each
    time on a machine without it: 50 to 150 µs of every step.
    """
    if torch.cuda.device_count() == 0:
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)


def make_trainer(
    config: DictConfig,
    folder: Path,
    record: Record,
    task: Task,
    processes: int,
    callbacks: Sequence[Callback] = (),
) -> Trainer:
    """The trainer of a run, with its callbacks, loggers and strategy.

    callbacks: those that are not configured, which are called before the others. Raises ConfigError.
    """
    stop_probing()
    if config.action == "fit" and devices.is_cpu(config.trainer):
        check_on_cpu(str(config.trainer.precision))
    network, modes = task.network, ModeGuard()
    core: list[Callback] = [modes, EpochSeed(config.seed), TrainingProgress()]
    added: list[Callback] = []
    loggers: list[Any] = []
    every_step = int("lr_monitor" in config.callbacks)  # only lr_monitor logs steps; our own metrics are an epoch's
    settings = OmegaConf.create({"log_every_n_steps": every_step, **config.trainer})
    for key in ("overfit_batches", *OUR_TRAINER_KEYS):
        del settings[key]
    if config.action == "fit" and config.tags:
        core.append(Tags([*config.tags]))
    if config.action == "fit":
        following = {"monitor": record.score, "mode": record.mode, "run_folder": folder}
        added = [offer(node, f"callbacks.{name}", following) for name, node in config.callbacks.items()]
        _refuse_in_fit([*callbacks, *added])
        loggers = [offer(node, f"logger.{name}", {"save_dir": folder}) for name, node in config.logger.items()]
        core.append(record)
        if task.thawing is not None:
            core.append(Thaw(task.thawing, config.thaw_at, modes))
        if handed_over(folder) and not config.extend:
            added.append(Pruning(record))
    if config.action == "test":
        made = (make_node(node, f"callbacks.{name}") for name, node in config.callbacks.items() if _is_for_test(node))
        added = [*made]
    if config.action == "lr_find":
        settings.max_epochs = 1000  # the finder ends by steps, before this
        settings.check_val_every_n_epoch = 1001  # it looks at the training loss alone
    if steps_per_call(config) > 1:
        settings.limit_train_batches = 1.0  # Chunks keeps the limit, in batches
        _refuse_per_batch([*callbacks, *added], config.steps_per_execution)
    plugins: list[Any] = [devices.environment(), WholeCheckpoints()]
    if processes > 1:
        core.append(SameConfig(config_hash(config)))
    if processes > 1 and config.action == "fit":
        if config.trainer.sync_batchnorm:
            plugins.append(Synchronise())
        else:
            core.append(MergeStatistics())
    nodes = devices.nodes()
    settings.devices, settings.num_nodes = processes // nodes, nodes
    ours = {
        "strategy": _strategy(config, network, processes),
        "plugins": plugins,
        "use_distributed_sampler": False,  # our data gives each process its share
        "callbacks": [*callbacks, *core, *added],
        "logger": loggers,
        "default_root_dir": folder,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": config.action == "fit",
    }
    if devices.has_own_gpu(config.trainer):
        ours["accelerator"] = devices.OwnGpu()
    try:
        trainer = make_node(settings, "trainer", **ours)
    except MisconfigurationException as error:  # the accelerator may not be there, for one
        device = f"trainer.accelerator={settings.accelerator}"
        raise ConfigError(f"trainer: {error} ({device}, trainer.precision={settings.precision})") from error
    precision = trainer.precision_plugin
    if isinstance(precision, MixedPrecision) and precision.scaler is not None:
        precision.scaler = Scaler(precision.device)
    trainer.profiler.dirpath = folder  # where a profiler writes its table
    # On SIGTERM Lightning would start a collective amid others; `Interrupts` treats it as Ctrl-C instead.
    trainer._signal_connector.register_signal_handlers = lambda: None
    return trainer


def _strategy(config: DictConfig, network: nn.Module, processes: int) -> Any:
    if cuts(config):
        check_several(config, processes)
    if processes == 1:
        return "auto"
    if cuts(config):
        from normlab.runner.fsdp import FullyShard, HalfButNorms  # torch may be built without it

        precision = HalfButNorms() if config.trainer.precision == "bf16-true" else None
        return FullyShard(precision_plugin=precision, timeout=devices.timeout(config))
    declared = map(declaration, network.modules())
    selective = any(each is not None and each.selective for each in declared)
    settings = {"find_unused_parameters": selective, **KEPT_BUFFERS}  # looking for them takes time
    return DDPStrategy(timeout=devices.timeout(config), **settings)


def _refuse_per_batch(callbacks: Sequence[Callback], steps: int) -> None:
    for callback in callbacks:
        if isinstance(callback, LearningRateMonitor):
            continue  # its logging_interval is checked with the configuration
        overridden = [hook for hook in PER_BATCH if getattr(type(callback), hook) is not getattr(Callback, hook)]
        if overridden:
            name = type(callback).__name__
            raise ConfigError(f"callbacks: {name} acts in {overridden[0]}; with steps_per_execution={steps} use 1")


def _is_for_test(node: DictConfig) -> bool:
    return issubclass(locate(node._target_, "callbacks"), PredictionTime)


def _refuse_in_fit(callbacks: Sequence[Callback]) -> None:
    for callback in callbacks:
        if isinstance(callback, PredictionTime):
            raise ConfigError(f"callbacks: {type(callback).__name__} acts in action=test; leave it out of the training")
        if isinstance(callback, StochasticWeightAveraging):
            raise ConfigError(
                "callbacks: Lightning's StochasticWeightAveraging estimates statistics for torch's own batch norm "
                "alone, and other norms would keep those of other weights than are saved; use callbacks=swa"
            )


def steps_per_call(config: DictConfig) -> int:
    """How many batches one call of `training_step` takes."""
    return config.steps_per_execution if config.action == "fit" else 1
