"""Keeps result.json up to date from the start of a run to its end."""

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.model_helpers import is_overridden
from omegaconf import DictConfig

from normlab.config.inputs import READ_INPUT
from normlab.errors import ChangedError, ConfigError, DamagedError, WriteError
from normlab.folder import files, keep, place, reuse, writing
from normlab.folder.identity import config_hash
from normlab.runner.actions import Outcome, saved_progress
from normlab.runner.build import Parts

log = logging.getLogger(__name__)

KEPT = ("result.json", "config.yaml", "environment.json")  # the files that an earlier start has left

ENDS = {ConfigError: "refused", KeyboardInterrupt: "interrupted"}


class Recorded:
    """Keeps result.json up to date from the start of a run to its end, however it ends."""

    def __init__(self, config: DictConfig, out: Path):
        self.keep: list[str] = [*config.keep]
        self.out, self.start = out, time.monotonic()
        self.name = config.name or place.shown(out).as_posix().removeprefix(f"{place.ROOT}/")
        self.kept = {file: file.read_text() for name in KEPT if (file := out / name).is_file()}
        # These errors leave an earlier result as it was; in other actions than a fit any refusal does.
        self.harmless = (DamagedError, ChangedError) if config.action == "fit" else ConfigError
        if config.action == "fit":
            reuse.clear_untrained(out, config)
        self.earlier = files.read_result(out) if config.action == "fit" else {}
        self.before = reuse.seconds(out, self.earlier)
        self.progress: Callable[[], dict[str, Any]] = dict
        self.result: dict[str, Any] = {
            "format": files.FORMAT,
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
            "batches": None,
            "steps": None,
            "skipped": None,
            "seconds": self.before,
            "parameters": None,
            "samples": {},
            "world_size": self.earlier.get("world_size", 1),
            "tags": [str(tag) for tag in config.tags],
            "overrides": list(config.overrides),
            **({"input": config.input} if config.action in READ_INPUT else {}),
            **({"init": self.earlier["init"]} if "init" in self.earlier else {}),
            "config_hash": config_hash(config),
            "error": None,
        }

    def __enter__(self) -> "Recorded":
        writing.write_result(self.out, self.result)
        return self

    def begun(self, init: dict[str, str] | None) -> None:
        """Records the weights that a training started from. init: their file and its content sum."""
        if init is not None:
            self.result["init"] = init

    def built(self, parts: Parts, progress: Callable[[], dict[str, Any]]) -> None:
        """Records the built parts. progress: tells how far the run has come."""
        self.progress = progress
        network = parts.task.network
        parameters = sum(parameter.numel() for parameter in network.parameters())
        trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
        self.result |= {
            "score_name": parts.record.score,
            "score_mode": parts.record.mode,
            "parameters": parameters,
            "samples": _samples(parts) if self.result["action"] == "fit" else {},  # other actions load less data
            "world_size": parts.trainer.world_size,
        }
        writing.write_result(self.out, self.result)
        name, device, processes = type(network).__name__, parts.trainer.strategy.root_device, parts.trainer.world_size
        where = f"{processes} processes, {device.type}" if processes > 1 else device
        self._tell_weights(parts)
        frozen = f" ({trained:,} trained, the others frozen)" if trained < parameters else ""
        log.info(f"{name}, {parameters:,} parameters{frozen}, on {where}, in {place.shown(self.out)}")

    def _tell_weights(self, parts: Parts) -> None:
        weighted = self.result["action"] == "fit" and getattr(parts.task, "class_weights", None) is not None
        if weighted and parts.record.score == "val/acc":
            log.warning(
                "task.class_weights=balanced with val/acc as the score: accuracy counts samples and favours the "
                "frequent classes, which the weights do not; score=val/f1 counts classes"
            )

    def done(self, outcome: Outcome, checkpoint: Path | None = None) -> None:
        """Records what came out. checkpoint: the one that was measured, where nothing was trained."""
        status = "pruned" if outcome.pruned else "finished"
        self.result |= {"status": status, "score": outcome.score, "metrics": outcome.metrics}
        self.result["majority"] = outcome.majority
        self.result["samples"] |= outcome.samples
        self.kept = {}  # the result of an earlier start is no longer the folder's
        if checkpoint is not None:
            words = [f"{checkpoint.name}: {_measured(outcome)}".removesuffix(": ")]
        elif outcome.score is not None:
            words = [_measured(outcome), f"best {self.result['score_name']} {outcome.score:.4g}"]
        else:
            words = [_measured(outcome)]
        words += [f"{self._seconds():.1f} s", str(place.shown(self.out))]
        log.info(", ".join(filter(None, words)))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if self.out / "result.json" in self.kept and isinstance(error, self.harmless):
            for file, text in self.kept.items():
                writing.write_text(file, text)
            return
        if error is not None:
            status = next((name for kind, name in ENDS.items() if isinstance(error, kind)), "failed")
            plain = status == "refused" or isinstance(error, WriteError)
            said = str(error) if plain else f"{type(error).__name__}: {error}".removesuffix(": ")
            self.result |= {"status": status, "error": said}
        if self.result["action"] == "fit":
            self.result |= self.progress()
            if isinstance(error, KeyboardInterrupt):
                error.args = (self._interrupted(),)
        ended = self.result["action"] == "fit" and self.result["status"] in ("finished", "pruned")
        if ended and "best" not in self.keep:
            self.result["best"] = self.result["best"] and {**self.result["best"], "path": None}
        with suppress(WriteError) if isinstance(error, WriteError) else nullcontext():  # the disk may still be full
            writing.write_result(self.out, self.result | {"seconds": self._seconds()})
        if ended:
            keep.drop(self.out, self.keep)
        if error is not None:  # last, since a traceback may take the room that result.json needs on a full disk
            log.debug(f"{self.result['status']}:", exc_info=None if isinstance(error, KeyboardInterrupt) else error)

    def _interrupted(self) -> str:
        """What a person is told whose run was interrupted."""
        saved = saved_progress(self.out / "checkpoints")
        epochs, batches = saved["epochs"], saved["batches"]
        if batches:
            came = f"saved in epoch {epochs + 1}, after {batches} batches"
        else:
            came = f"saved after {epochs} epochs" if epochs else "nothing was saved yet"
        return f"interrupted; {came}: the same command with name={self.name} goes on"

    def _seconds(self) -> float:
        return round(time.monotonic() - self.start + self.before, 2)


def _measured(outcome: Outcome) -> str:
    """The metrics in words, for a fit those of the test part, with what always guessing one class would score."""
    stage = "test" if any(name.startswith("test/") for name in outcome.metrics) else "val"
    words = ", ".join(f"{name} {value:.4g}" for name, value in outcome.metrics.items() if name.startswith(f"{stage}/"))
    share = outcome.majority.get(stage)
    return words + (f" (always one class: acc {share:.4g})" if share is not None else "")


def _samples(parts: Parts) -> dict[str, int]:
    """How many samples each part of the data has, on which depends how much a score means.

    A part is left out where the trainer takes a share of it alone, and where its loader does not know.
    """
    sizes = {}
    for part in ("train", "val", "test"):
        limit = getattr(parts.trainer, f"limit_{part}_batches")
        whole = isinstance(limit, float) and limit == 1  # the integer is a single batch
        if whole and is_overridden(f"{part}_dataloader", parts.loaders):
            dataset = getattr(getattr(parts.loaders, f"{part}_dataloader")(), "dataset", None)
            if hasattr(dataset, "__len__"):
                sizes[part] = len(dataset)  # pyright: ignore[reportArgumentType]
    return sizes
