"""One run from configuration to result: the same on the command line, in a sweep and in a notebook."""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning import Callback, LightningDataModule
from omegaconf import DictConfig

from normlab.config.conflicts import check_output
from normlab.config.inputs import checkpoint_path, output_folder
from normlab.config.replaying import replayed_folder
from normlab.config.rules import check_all
from normlab.config.unread import check_read
from normlab.data.common.base import DataModule
from normlab.data.common.given import Datasets, take
from normlab.distributed import world
from normlab.distributed.devices import threads, timeout
from normlab.distributed.interrupts import interruptible
from normlab.distributed.rendezvous import Start
from normlab.distributed.slurm import WARNING, batch_job, requeue
from normlab.errors import ConfigError, unmasked
from normlab.folder import environment, lock, place, reuse, writing
from normlab.folder.checkpoints import load_weights
from normlab.folder.files import check_files
from normlab.folder.resuming import prepare_resuming
from normlab.folder.same_data import check_same_data
from normlab.logs import closing_wandb, is_quiet, logging_to, no_logging, quiet_lightning, quietly
from normlab.runner.actions import Outcome, act, progress
from normlab.runner.allocator import set_allocator
from normlab.runner.answers import Written
from normlab.runner.build import Context, Parts, build
from normlab.runner.exports import check_format
from normlab.runner.replayed import compare
from normlab.runner.result import Recorded
from normlab.runner.starting import load_init

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Result:
    """The result of a run: its folder, score and metrics, and the task with the weights that were measured last.

    `task` is None where an earlier start had finished the run, and of action=stats.
    """

    folder: Path
    score: float | None
    metrics: dict[str, float]
    task: torch.nn.Module | None
    written: Written | None = None

    @cached_property
    def predictions(self) -> "DataFrame | None":
        """The predictions of action=predict, a row a sample, as predictions.csv holds them; read when first asked."""
        return self.written and self.written.read()


@unmasked()
def run(
    config: DictConfig,
    folder: str | Path | None = None,
    data: LightningDataModule | Datasets | None = None,
    callbacks: Sequence[Callback] = (),
) -> Result:
    """Does what `config.action` says; `config` comes from `normlab.compose`.

    folder: the run folder; None takes `outputs/<name>`, or a new one without a name. data: a LightningDataModule, or
    (train, val[, test]) in place of the configured data, each a dataset, a DataLoader or a pair of arrays. callbacks:
    Lightning's, beside the configured ones; they act in this process, and so not with several that the run starts.
    Raises ConfigError where something cannot work, before any training, and KeyboardInterrupt on Ctrl-C and SIGTERM;
    the folder's result.json tells the end in any case. Of processes that torchrun or srun started the first one writes
    it and all else, and the others train with it.
    """
    if not isinstance(config, DictConfig):
        raise ConfigError(f'config is a {type(config).__name__}; expected normlab.compose(["model=net", …])')
    check_read(config)
    check_all(config)
    with interruptible(says=not is_quiet()) as interrupts, Start(timeout(config)) as start:
        if data is not None:
            config = config.copy()
            data, config.data = take(data, config)
        try:
            return _run(config, folder, Context(data, callbacks, interrupts=interrupts), start)
        except KeyboardInterrupt as error:
            job = batch_job()
            asked_by_slurm = interrupts.asked in (signal.SIGTERM, *WARNING)
            if asked_by_slurm and job is not None and world.is_first() and requeue(job):
                error.args = (f"{error}; SLURM does that: job {job} is back in its queue",)
            raise


@unmasked()
def run_job(config: DictConfig, folder: str | Path) -> Result:
    """As `run`, for a job of a sweep: it keeps off the console, and shares its data with the next job here."""
    with quietly(), interruptible() as interrupts, Start(timeout(config)) as start:
        return _run(config, folder, Context(shares_data=True, interrupts=interrupts), start)


def _run(config: DictConfig, folder: str | Path | None, context: Context, start: Start) -> Result:
    check_format(config)
    path = Path(folder) if folder is not None else place.resolve(config.name, config.action, config.ckpt)
    checkpoint = checkpoint_path(config, path)
    out = output_folder(config, path)
    context = replace(context, run_folder=path)
    replayed = replayed_folder(config.replay) if config.action == "fit" and config.replay is not None else None
    here = world.current()
    check_output(config, path)
    if config.action == "fit":
        reuse.check_fit(path, config)
        if (result := reuse.finished(path, config)) is not None:
            reuse.tell_finished(path, result)
            return Result(path, result["score"], result["metrics"], None)
    else:
        check_files(out)
    if config.action == "stats":
        writing.make_folder(out)
        return _look_at_data(config, path, out, context.data)
    if here is not None:
        torch.set_num_threads(threads(here.local))
    if here is not None and here.rank > 0:
        return _follow(config, path, out, checkpoint, replace(context, rank=here.rank), start)
    writing.make_folder(path / "checkpoints" if config.action == "fit" else out)
    with lock.hold(out), logging_to(out / "train.log"), Recorded(config, out) as recorded, unmasked():
        quiet_lightning()
        set_allocator(config.allocator)
        parts = build(config, out, context)
        if checkpoint is not None:
            load_weights(parts.task, checkpoint)
        if config.action == "fit":
            _check_world(recorded.earlier, parts)
            if isinstance(parts.data, DataModule) and parts.data.fingerprint is not None:
                accepted = config.data.get("changed") == "ok"
                check_same_data(out, parts.data.fingerprint, accepted, replayed)
            prepare_resuming(out, parts.task)
        recorded.begun(load_init(config, parts.task.network, out, recorded.earlier))
        writing.write_config(out, config)
        if config.action == "fit" and isinstance(parts.data, DataModule):
            parts.data.save(out)
        environment.write_environment(out, _devices(parts))
        start.ready(config)
        if parts.trainer.world_size > 1 and here is None:
            if context.callbacks:
                raise ConfigError(
                    f"callbacks given from Python act in one process, and this run starts {parts.trainer.world_size}: "
                    "name them in a yaml file of conf/callbacks, or set trainer.devices=1"
                )
            from normlab.runner.launch import Launcher  # torch may be built without it

            launcher = Launcher(config, out, checkpoint, parts.trainer.world_size)
            recorded.built(parts, lambda: launcher.progress)
            outcome = launcher.run()
            if config.action == "fit":
                load_weights(parts.task, parts.record.path("best"))
        else:
            recorded.built(parts, lambda: progress(parts))
            with _keyboard_interrupt(), closing_wandb():
                outcome = act(config.action, parts, out)
        recorded.done(outcome, checkpoint)
        if replayed is not None:
            recorded.result["replay"] = compare(replayed, out, recorded.result, config)
    return Result(path, outcome.score, outcome.metrics, parts.task, outcome.predictions)


def _look_at_data(config: DictConfig, path: Path, out: Path, data: Any) -> Result:
    """action=stats, which needs no network."""
    from normlab.runner.stats import stats  # with pandas and matplotlib

    with lock.hold(out), logging_to(out / "train.log"), Recorded(config, out) as recorded:
        quiet_lightning()
        writing.write_config(out, config)
        figures, problems = stats(config, out, data)
        outcome = Outcome(None, figures)
        recorded.done(outcome)
        problems.check()  # a script that goes on to training must not
    return Result(path, None, outcome.metrics, None)


def _follow(
    config: DictConfig, path: Path, out: Path, checkpoint: Path | None, context: Context, start: Start
) -> Result:
    """What every process but the first does: its part of the training, without output or files."""
    with no_logging(), closing_wandb():
        quiet_lightning()
        set_allocator(config.allocator)
        parts = build(config, out, context)
        if checkpoint is not None:
            load_weights(parts.task, checkpoint)
        start.ready(config)
        load_init(config, parts.task.network, out, {}, says=False)
        outcome = act(config.action, parts, out)
    return Result(path, outcome.score, outcome.metrics, parts.task)


@contextmanager
def _keyboard_interrupt() -> Iterator[None]:
    """Raises KeyboardInterrupt on Ctrl-C, on which Lightning exits and ignores SIGINT from then on."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)


def _check_world(earlier: dict[str, Any], parts: Parts) -> None:
    """Refuses to go on with another number of processes, which `trainer.devices=auto` may give on another machine."""
    before, now = earlier.get("world_size"), parts.trainer.world_size
    if before not in (None, now) and parts.record.path("last").is_file():
        raise ConfigError(f"this run was begun on {before} devices and would go on on {now}: choose another name=")


def _devices(parts: Parts) -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    device, processes = parts.trainer.strategy.root_device, parts.trainer.world_size
    cores = threads(processes // parts.trainer.num_nodes)
    return {
        "device": str(device),
        "processes": processes,
        "gpus": gpus,
        "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "threads": cores,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "matmul_precision": torch.get_float32_matmul_precision(),
    }
