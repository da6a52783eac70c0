"""One run from configuration to result, on the command line, in a sweep and in a notebook alike."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from omegaconf import DictConfig

from normlab import folder as folders
from normlab import joined
from normlab.actions import Outcome, act, progress
from normlab.allocator import set_allocator
from normlab.build import Parts, build
from normlab.checkpoints import load_weights, prepare_resuming
from normlab.checks import checkpoint_path
from normlab.data.base import DataModule
from normlab.data.given import Datasets, take
from normlab.errors import ConfigError, DamagedError
from normlab.files import check_files
from normlab.identity import config_hash
from normlab.interrupts import interruptible
from normlab.logs import closing_wandb, logging_to, no_logging, quiet_lightning
from normlab.rules import check_all
from normlab.start import Start
from normlab.unread import check_read
from normlab.world import threads, timeout

if TYPE_CHECKING:
    from pandas import DataFrame

log = logging.getLogger(__name__)

KEPT = ("result.json", "config.yaml", "environment.json")  # what tells of an earlier start
ENDS = {ConfigError: "refused", KeyboardInterrupt: "interrupted"}


@dataclass(frozen=True)
class Result:
    """What a run leaves: its folder, score and metrics, and the task with the weights that were measured last.

    `task` is None where an earlier start had finished the run, and of action=stats. `predictions` are those of
    action=predict, a row a sample, as predictions.csv holds them.
    """

    folder: Path
    score: float | None
    metrics: dict[str, float]
    task: torch.nn.Module | None
    predictions: "DataFrame | None" = None


def run(
    config: DictConfig, folder: str | Path | None = None, data: LightningDataModule | Datasets | None = None
) -> Result:
    """Does what `config.action` says; `config` comes from `normlab.compose`.

    folder: the run folder; None takes `outputs/<name>`, or a new one without a name. data: a LightningDataModule, or
    (train, val[, test]) in place of the configured data, each a dataset, a DataLoader or a pair of arrays. Raises
    ConfigError where something cannot work, before any training, and KeyboardInterrupt on Ctrl-C and SIGTERM; the
    folder's result.json tells the end in any case. Of processes that torchrun or srun started the first one writes it
    and all else, and the others train with it.
    """
    if not isinstance(config, DictConfig):
        raise ConfigError(f'config is a {type(config).__name__}; expected normlab.compose(["model=net", …])')
    check_read(config)
    check_all(config)
    with interruptible(), Start(timeout(config)) as start:
        return _run(config, folder, data, start)


def _run(config: DictConfig, folder: str | Path | None, data: Any, start: Start) -> Result:
    path = Path(folder) if folder is not None else folders.resolve(config.name, config.action, config.ckpt)
    if data is not None:
        config = config.copy()
        data, config.data = take(data, config)
    checkpoint = checkpoint_path(config, path)
    out = path / config.action
    here = joined.found()
    folders.check_place(path if config.action == "fit" else out)
    if config.action == "fit":
        folders.check_fit(path, config)
        if (result := folders.finished(path, config)) is not None:
            folders.tell_finished(path, result)
            return Result(path, result["score"], result["metrics"], None)
        out = path
    else:
        check_files(out)
    if config.action == "stats":
        out.mkdir(parents=True, exist_ok=True)
        return _look_at_data(config, path, out, data)
    if here is not None:
        torch.set_num_threads(threads(here.local))
    if here is not None and here.rank > 0:
        return _follow(config, path, out, checkpoint, data, here.rank, start)
    (path / "checkpoints" if config.action == "fit" else out).mkdir(parents=True, exist_ok=True)
    with folders.lock(out), logging_to(out / "train.log"), _Recorded(config, out) as recorded:
        quiet_lightning()
        set_allocator(config.allocator)
        parts = build(config, out, data)
        if checkpoint is not None:
            load_weights(parts.task, checkpoint)
        if config.action == "fit":
            _check_world(recorded.earlier, parts)
            prepare_resuming(out, parts.task)
        folders.write_config(out, config)
        if config.action == "fit" and isinstance(parts.data, DataModule):
            parts.data.save(out)
        folders.write_environment(out, _devices(parts))
        start.ready(config)
        if parts.trainer.world_size > 1 and here is None:
            from normlab.launch import Launcher  # torch may be built without it

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
    return Result(path, outcome.score, outcome.metrics, parts.task, outcome.predictions)


def _look_at_data(config: DictConfig, path: Path, out: Path, data: Any) -> Result:
    """action=stats, which needs no network."""
    from normlab.stats.action import stats  # with pandas and matplotlib

    with folders.lock(out), logging_to(out / "train.log"), _Recorded(config, out) as recorded:
        quiet_lightning()
        folders.write_config(out, config)
        outcome = Outcome(None, stats(config, out, data))
        recorded.done(outcome)
    return Result(path, None, outcome.metrics, None)


def _follow(
    config: DictConfig, path: Path, out: Path, checkpoint: Path | None, data: Any, rank: int, start: Start
) -> Result:
    """What another process than the first does: its part of the training, and nothing that is seen."""
    with no_logging(), closing_wandb():
        quiet_lightning()
        set_allocator(config.allocator)
        parts = build(config, out, data, rank)
        if checkpoint is not None:
            load_weights(parts.task, checkpoint)
        start.ready(config)
        outcome = act(config.action, parts, out)
    return Result(path, outcome.score, outcome.metrics, parts.task)


class _Recorded:
    """Keeps result.json true from the start of a run to its end, however it ends."""

    def __init__(self, config: DictConfig, out: Path):
        self.out, self.start = out, time.monotonic()
        self.kept = {file: file.read_text() for name in KEPT if (file := out / name).is_file()}
        # What leaves an earlier result as it was: any refusal of another look, and of a fit one that damage causes.
        self.harmless = DamagedError if config.action == "fit" else ConfigError
        if config.action == "fit":
            folders.clear_untrained(out, config)
        self.earlier = folders.read_result(out) if config.action == "fit" else {}
        self.before = folders.seconds(out, self.earlier)
        self.progress: Callable[[], dict[str, Any]] = dict
        self.result: dict[str, Any] = {
            "format": 1,
            "action": config.action,
            "status": "running",
            "score": None,
            "score_name": None,
            "score_mode": None,
            "metrics": {},
            "majority": {},
            "best": None,
            "seed": config.seed,
            "epochs": None,
            "steps": None,
            "skipped": None,
            "seconds": self.before,
            "parameters": None,
            "samples": {},
            "world_size": self.earlier.get("world_size", 1),
            "overrides": list(config.overrides),
            **({"input": config.get("input")} if config.action == "predict" else {}),
            "config_hash": config_hash(config),
            "error": None,
        }

    def __enter__(self) -> "_Recorded":
        folders.write_result(self.out, self.result)
        return self

    def built(self, parts: Parts, progress: Callable[[], dict[str, Any]]) -> None:
        """`progress` tells how far the run has come."""
        self.progress = progress
        network = parts.task.network
        parameters = sum(parameter.numel() for parameter in network.parameters())
        self.result |= {
            "score_name": parts.record.score,
            "score_mode": parts.record.mode,
            "parameters": parameters,
            "samples": _samples(parts) if self.result["action"] == "fit" else {},  # others set up less
            "world_size": parts.trainer.world_size,
        }
        folders.write_result(self.out, self.result)
        name, device, processes = type(network).__name__, parts.trainer.strategy.root_device, parts.trainer.world_size
        where = f"{processes} processes, {device.type}" if processes > 1 else device
        self._tell_weights(parts)
        log.info(f"{name}, {parameters:,} parameters, on {where}, in {folders.shown(self.out)}")

    def _tell_weights(self, parts: Parts) -> None:
        weighted = self.result["action"] == "fit" and getattr(parts.task, "class_weights", None) is not None
        if weighted and parts.record.score == "val/acc":
            log.warning(
                "task.class_weights=balanced with val/acc as the score: accuracy counts samples and favours the "
                "frequent classes, which the weights do not; score=val/f1 counts classes"
            )

    def done(self, outcome: Outcome, checkpoint: Path | None = None) -> None:
        """`checkpoint` is what was measured, where nothing was trained."""
        status = "pruned" if outcome.pruned else "finished"
        self.result |= {"status": status, "score": outcome.score, "metrics": outcome.metrics}
        self.result["majority"] = outcome.majority
        if checkpoint is not None:
            told = [f"{checkpoint.name}: {_measured(outcome)}".removesuffix(": ")]
        elif outcome.score is not None:
            told = [_measured(outcome), f"best {self.result['score_name']} {outcome.score:.4g}"]
        else:
            told = [_measured(outcome)]
        told += [f"{self._seconds():.1f} s", str(folders.shown(self.out))]
        log.info(", ".join(filter(None, told)))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if self.out / "result.json" in self.kept and isinstance(error, self.harmless):
            for file, text in self.kept.items():
                folders.write_text(file, text)
            return
        if error is not None:
            status = next((name for kind, name in ENDS.items() if isinstance(error, kind)), "failed")
            said = str(error) if status == "refused" else f"{type(error).__name__}: {error}".removesuffix(": ")
            self.result |= {"status": status, "error": said}
            log.debug(f"{status}:", exc_info=None if status == "interrupted" else error)
        if self.result["action"] == "fit":
            self.result |= self.progress()
        folders.write_result(self.out, self.result | {"seconds": self._seconds()})

    def _seconds(self) -> float:
        return round(time.monotonic() - self.start + self.before, 2)


def _measured(outcome: Outcome) -> str:
    """The metrics of what is over, test's of a fit, and what always guessing one class would score."""
    stage = "test" if any(name.startswith("test/") for name in outcome.metrics) else "val"
    told = ", ".join(f"{name} {value:.4g}" for name, value in outcome.metrics.items() if name.startswith(f"{stage}/"))
    share = outcome.majority.get(stage)
    return told + (f" (always one class: acc {share:.4g})" if share is not None else "")


@contextmanager
def _keyboard_interrupt() -> Iterator[None]:
    """Turns Lightning's answer to Ctrl-C, an exit with SIGINT ignored from then on, back into KeyboardInterrupt."""
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


def _samples(parts: Parts) -> dict[str, int]:
    """How many samples each part of the data has, which is what a score is worth.

    A part is left out where the trainer takes a share of it alone, and where its loader does not know.
    """
    found = {}
    for part in ("train", "val", "test"):
        limit = getattr(parts.trainer, f"limit_{part}_batches")
        whole = isinstance(limit, float) and limit == 1  # the integer is a single batch
        if whole and is_overridden(f"{part}_dataloader", parts.data):
            dataset = getattr(getattr(parts.data, f"{part}_dataloader")(), "dataset", None)
            if hasattr(dataset, "__len__"):
                found[part] = len(dataset)  # pyright: ignore[reportArgumentType]
    return found


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
        "matmul_precision": torch.get_float32_matmul_precision(),
    }
