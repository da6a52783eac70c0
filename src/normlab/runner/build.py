"""How the parts meet: the one function that turns a configuration into a task, its data and a trainer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from lightning import Callback, LightningDataModule, Trainer, seed_everything
from lightning.pytorch.utilities.model_helpers import is_overridden
from omegaconf import DictConfig
from torch import Tensor, nn

from normlab.callbacks.record import Record
from normlab.config.cutting import cuts
from normlab.config.inputs import checkpoint_path, input_path
from normlab.config.instantiate import locate, make
from normlab.config.interval import parse_interval
from normlab.config.options import options, read_option
from normlab.distributed import devices
from normlab.distributed.interrupts import Interrupts
from normlab.doctor.case import Facts
from normlab.errors import ConfigError, was_refused
from normlab.norms.common.declaration import declaration
from normlab.norms.common.probe import check_forward
from normlab.norms.common.synchronise import Synchronise
from normlab.runner.batch_sizes import batch_sizes, check_batches, check_evaluation, shares
from normlab.runner.compiling import compile_network
from normlab.runner.data import TrainerData, build_data
from normlab.runner.exports.common.graph import check_evaluates_samples
from normlab.runner.exports.common.wanted import Wanted
from normlab.runner.inputs import Inputs, looking, read_inputs
from normlab.runner.network import make_network
from normlab.runner.patient import facts
from normlab.runner.starting import freeze_part
from normlab.runner.task import make_task
from normlab.runner.trainer import make_trainer, steps_per_call
from normlab.runner.units import check_shardable
from normlab.tasks.base import Task
from normlab.tasks.classify import Classify


@dataclass
class Parts:
    """The parts of a run."""

    task: Task
    data: LightningDataModule
    loaders: LightningDataModule  # the data as the trainer takes it
    trainer: Trainer
    record: Record
    inputs: Inputs | None = None  # what action=predict predicts, or the labelled samples that action=test measures
    escape: bool = False  # whether predictions.csv is safe to open in a spreadsheet
    wanted: Wanted | None = None  # what action=export writes
    test: bool = True  # whether a fit ends on the test part
    facts: Callable[[], Facts] | None = None  # what the doctor is told of the training, where it is asked


@dataclass(frozen=True)
class Context:
    """What a run has beside its configuration.

    data: a data module in place of the configured one. callbacks: those that are not configured. rank: which of several
    processes this is. shares_data: whether the next run in this process may take the data that this one has set up.
    interrupts: what signals ask of the run. run_folder: where the fit lies that an action looks at; None: above the
    action's own folder.
    """

    data: LightningDataModule | None = None
    callbacks: Sequence[Callback] = ()
    rank: int = 0
    shares_data: bool = False
    interrupts: Interrupts = field(default_factory=Interrupts)
    run_folder: Path | None = None


def build(config: DictConfig, folder: Path, context: Context | None = None) -> Parts:
    """Builds everything that the configuration names and checks that it fits together.

    Raises ConfigError, and what a part's own class raises; nothing was trained then.
    """
    try:
        return _build(config, folder, context or Context())
    except ValueError as error:
        if isinstance(error, ConfigError) or not was_refused(error):
            raise
        raise ConfigError(str(error)) from error


def _build(config: DictConfig, folder: Path, context: Context) -> Parts:
    seed_everything(config.seed, verbose=False)
    torch.set_float32_matmul_precision(config.trainer.matmul_precision)
    processes, path = devices.count(config), input_path(config)
    run_folder = context.run_folder or folder.parent
    data = build_data(config, run_folder, context.data, context.rank, processes, context.shares_data)
    _check_input_dims(config, data.input_shape)

    norm = make(config, "norm")
    network = make_network(config, data, norm)
    norm_inputs = check_forward(network, data.input_shape, data.out_features)
    if config.thaw_at is None:
        freeze_part(config, network)
    if config.action == "fit":
        _check_training(config, network, norm_inputs, batch_sizes(data.train_dataloader(), processes), processes)
    # What is thawed later was checked as it will then be trained.
    thawing = None if config.thaw_at is None else freeze_part(config, network)
    if config.action in ("fit", "validate"):
        check_evaluation(network, norm_inputs, shares(batch_sizes(data.val_dataloader(), processes), processes))
    if config.action in ("fit", "test") and path is None and is_overridden("test_dataloader", data):
        check_evaluation(network, norm_inputs, shares(batch_sizes(data.test_dataloader(), processes), processes))
    if cuts(config) and processes > 1:
        check_shardable(network)
    inputs = None
    if config.action == "predict" or path is not None:
        look = looking(network, norm_inputs, data.input_shape, f"input={path}")
        inputs = read_inputs(data, path, look, labelled=config.action == "test")
        check_evaluation(network, norm_inputs, batch_sizes(inputs.loader))
    if config.action == "export":
        check_evaluates_samples(network)
    elif config.compile:
        compile_network(network, devices.is_cpu(config.trainer))

    task = make_task(config, network, data, thawing)
    if config.compile and steps_per_call(config) > 1 and processes == 1:
        task.compile_steps()
    score = config.score or task.score
    task.check_score(score)
    every = None if config.save_every is None else parse_interval(config.save_every)
    within = {"seed": config.seed, "every": every, "interrupts": context.interrupts}
    mode = config.score_mode or task.direction(score)
    record = Record(folder, score, mode, task.metric_names(), config.keep, **within)
    if config.action == "fit":
        task.check_training()
    if config.action == "fit" and config.data.get("mix") is not None and isinstance(task, Classify):
        task.check_mixing()
    loaders = TrainerData(data, config, inputs and inputs.loader)
    trainer = make_trainer(config, folder, record, task, processes, context.callbacks)
    if uses_channels_last(config, network, trainer.strategy.root_device.type):
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    # Lightning converts only after it has loaded a checkpoint; under 64-true half of the digits would be lost.
    trainer.precision_plugin.convert_module(task)
    wanted, known = _wanted(config, run_folder), _facts(config, run_folder, folder)
    return Parts(task, data, loaders, trainer, record, inputs, config.escape, wanted, config.test, known)


def _wanted(config: DictConfig, run_folder: Path) -> Wanted | None:
    if config.action != "export":
        return None
    checkpoint = checkpoint_path(config, run_folder)
    assert checkpoint is not None
    return Wanted(config.format, config.int8, checkpoint)


def _facts(config: DictConfig, run_folder: Path, folder: Path) -> Callable[[], Facts] | None:
    """What tells the doctor of a training: for action=doctor, and at the end of a fit that asks for it."""
    if config.action == "doctor":
        checkpoint = checkpoint_path(config, run_folder)
        assert checkpoint is not None
        return partial(facts, config, run_folder, checkpoint)
    if config.action == "fit" and config.doctor:
        return partial(facts, config, folder, folder / "checkpoints" / "best.ckpt")
    return None


def _check_training(
    config: DictConfig, network: nn.Module, norm_inputs: dict[str, Tensor], sizes: list[int], processes: int
) -> None:
    """Raises ConfigError or ValueError for what cannot train. sizes: of the joint batches of all processes."""
    joint: dict[str, Tensor] = {}
    if processes > 1 and config.trainer.sync_batchnorm:
        synchronise = Synchronise()
        synchronise.revert(synchronise.apply(network))  # refuses layers that cannot be synchronised
        joint = {name: x for name, x in norm_inputs.items() if _takes_joint_statistics(network.get_submodule(name))}
    check_batches(network, joint, sizes)
    parts = shares(sizes, processes)
    if 0 in parts:
        raise ConfigError(
            f"the last training batch holds {sizes[-1]} samples for {processes} processes: set data.drop_last=true, or "
            "another data.batch_size"
        )
    alone = {name: x for name, x in norm_inputs.items() if name not in joint}
    check_batches(network, alone, parts, where="" if processes == 1 else " in a process")


def _takes_joint_statistics(layer: nn.Module) -> bool:
    declared = declaration(layer)  # ghost batches, of more than one sample, stay within a process
    return declared is not None and declared.synchronisable and declared.samples == 1


def _check_input_dims(config: DictConfig, input_shape: Sequence[int]) -> None:
    """Raises ConfigError where the network takes samples of another rank, and names ours that fit."""

    def fits(target: str) -> bool:
        network = locate(target, "model")
        return getattr(network, "input_dims", len(input_shape)) == len(input_shape)

    if fits(config.model._target_):
        return
    fitting = [name for name in options("model") if fits(read_option("model", name)._target_)]
    raise ConfigError(
        f"{config.model._target_} takes images (C, H, W), and this data has samples of shape {tuple(input_shape)}; "
        f"normlab's networks that fit: {', '.join(fitting)}"
    )


def uses_channels_last(config: DictConfig, network: nn.Module, device: str) -> bool:
    """Whether the layout is channels_last; `auto` takes it for convolutions in 16 bits, if no norm copies then."""
    if config.channels_last != "auto":
        return config.channels_last
    if cuts(config):
        return False  # fully_shard cuts contiguous parameters only
    declared = map(declaration, network.modules())
    if any(each is not None and device in each.contiguous_on for each in declared):
        return False
    return "16" in str(config.trainer.precision) and any(isinstance(m, nn.Conv2d) for m in network.modules())
