"""The actions of a run: fit, validate, test, predict, export, doctor, and the search for a learning rate."""

import io
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.tuner.tuning import Tuner
from lightning.pytorch.utilities.model_helpers import is_overridden

from normlab.data.common.base import DataModule
from normlab.data.common.targets import class_names, target_columns
from normlab.distributed.peers import Peers
from normlab.errors import ConfigError, DamagedError
from normlab.folder.checkpoints import epochs_ended, load_weights, read
from normlab.folder.place import failing, shown
from normlab.folder.writing import replacing, write_text, write_with
from normlab.logs import console
from normlab.runner.answers import Answers, Written
from normlab.runner.build import Parts
from normlab.runner.doctor import examine, examine_fit
from normlab.runner.export import write_export
from normlab.runner.precision import say_where_slow
from normlab.runner.predictions import csv_table
from normlab.sweeps.pruning import Pruning

log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """The result of an action: its score, if it has one, its metrics, and where its predictions are, a row a sample.

    pruned: whether a search has ended the fit early. majority: the share of the most frequent class in the parts that
    were measured, val or test, which always guessing it would score; empty where there are no classes. samples: how
    many were measured, where that is told only now.
    """

    score: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    predictions: Written | None = None
    pruned: bool = False
    majority: dict[str, float] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)


def act(action: str, parts: Parts, folder: Path) -> Outcome:
    """Runs an action. Raises WaitError, with the ranks that did not come, where processes wait in vain."""
    with Peers(parts.trainer):
        return ACTIONS[action](parts, folder)


def fit(parts: Parts, folder: Path) -> Outcome:
    """Trains, going on from the newest checkpoint if there is one, then tests the best, unless the run is pruned.

    With `test=false` nothing is tested.
    """
    trainer, record = parts.trainer, parts.record
    if trainer.strategy.root_device.type == "cpu":
        say_where_slow(str(trainer.precision))
    newest = next(filter(Path.is_file, map(record.path, ("within_epoch", "last"))), None)
    trainer.fit(parts.task, datamodule=parts.loaders, ckpt_path=newest, weights_only=True)
    if record.best is None:  # trainer.max_steps ended the run before its first validation
        record.adopt_last(trainer, trainer.validate(parts.task, datamodule=parts.loaders, verbose=False)[0])
    trainer.strategy.barrier()  # the first process has just written the best
    best = record.best
    assert best is not None
    load_weights(parts.task, record.path("best"))
    metrics = dict(best["metrics"])
    if any(isinstance(callback, Pruning) and callback.pruned for callback in trainer.callbacks):  # pyright: ignore
        log.info(f"pruned after {trainer.current_epoch} epochs, and not tested")
        return Outcome(best["score"], metrics, pruned=True, majority=parts.task.majority)
    if parts.test and is_overridden("test_dataloader", parts.data):
        metrics |= trainer.test(parts.task, datamodule=parts.loaders, verbose=False)[0]
        _write_tables(parts, folder)
    if parts.facts is not None:
        examine_fit(parts, folder)
    return Outcome(best["score"], metrics, majority=parts.task.majority)


def validate(parts: Parts, folder: Path) -> Outcome:
    """Measures a checkpoint on the validation split."""
    metrics = dict(parts.trainer.validate(parts.task, datamodule=parts.loaders, verbose=False)[0])
    _write_tables(parts, folder)
    return Outcome(metrics.get(parts.record.score), metrics, majority=parts.task.majority)


def test(parts: Parts, folder: Path) -> Outcome:
    """Measures a checkpoint on the test split, or on new samples that are labelled."""
    inputs = parts.inputs
    source: dict[str, Any] = {"datamodule": parts.loaders} if inputs is None else {"dataloaders": inputs.loader}
    metrics = dict(parts.trainer.test(parts.task, verbose=False, **source)[0])
    _write_tables(parts, folder)
    samples = {} if inputs is None else {"test": inputs.loader.samples}
    return Outcome(None, metrics, majority=parts.task.majority, samples=samples)


def _write_tables(parts: Parts, folder: Path) -> None:
    """Writes metrics that are tables, such as confusion_matrix, as <metric>_<part>.csv; rows are the true classes.

    Where the target has several columns, rows are these.
    """
    if not parts.trainer.is_global_zero:
        return
    names = class_names(parts.data) or getattr(parts.data, "target_names", ())
    for stage, tables in parts.task.tables.items():
        for name, values in tables.items() if stage != "train" else ():
            write_text(folder / f"{name}_{stage}.csv", csv_table(values, names))


def predict(parts: Parts, folder: Path) -> Outcome:
    """Writes what the network says of new samples, or of the test part, to predictions.csv."""
    inputs, data, trainer = parts.inputs, parts.data, parts.trainer
    assert inputs is not None
    # Batches of own data go through its hooks; ours may have been restored from the folder and cannot be set up.
    ours = isinstance(data, DataModule)
    source: dict[str, Any] = {"dataloaders": inputs.loader} if ours else {"datamodule": parts.loaders}
    file = folder / "predictions.csv"
    with replacing(file) as part:

        def write(text: str) -> None:
            with failing(file):
                part.write(text.encode("utf-8", "backslashreplace"))

        answers = Answers(inputs, target_columns(data), write, parts.escape)
        trainer.callbacks.append(answers)  # pyright: ignore[reportAttributeAccessIssue]
        trainer.predict(parts.task, return_predictions=False, **source)
        answers.flush()
        if not answers.rows:
            raise ConfigError("action=predict: the data gives no samples")
        answers.check_finite()
    said = "; ".join(summary.words() for summary in answers.summaries)
    log.info(f"{answers.rows} rows in {shown(file)}: {said}")
    return Outcome(None, {}, Written(file, answers.types))


def export(parts: Parts, folder: Path) -> Outcome:
    """Writes a checkpoint's network to a file that needs no normlab, and tries that file in a process of its own."""
    assert parts.wanted is not None
    return Outcome(None, write_export(parts.wanted, parts.task, parts.data, folder))


def doctor(parts: Parts, folder: Path) -> Outcome:
    """Says what is wrong with the norm layers of a checkpoint's network, in doctor.json too."""
    made = examine(parts, folder)
    return Outcome(None, {"findings": len(made.findings), "notes": len(made.notes)})


def lr_find(parts: Parts, folder: Path) -> Outcome:
    """Raises the learning rate step by step until the loss grows; draws the curve and suggests a rate.

    The suggestion is where the loss falls fastest on its way to the minimum. Smith, Cyclical Learning Rates, 2017,
    arXiv:1506.01186.
    """
    import matplotlib.pyplot as plt  # takes half a second that no other action needs

    with _quiet_unless_terminal():
        finder = Tuner(parts.trainer).lr_find(
            parts.task, datamodule=parts.loaders, min_lr=1e-6, max_lr=10, update_attr=False
        )
    assert finder is not None
    # Lightning's smoothing starts too low, so the first fifth of its curve means nothing.
    skipped = len(finder.results["loss"]) // 5
    measured = sum(map(math.isfinite, finder.results["loss"]))  # a loss that is not finite ends the search
    rates, losses = finder.results["lr"][skipped:measured], finder.results["loss"][skipped:measured]
    place = steepest_fall(losses)
    picture = folder / "lr_find.png"
    figure, axes = plt.subplots()
    axes.plot(rates, losses)
    axes.set(xscale="log", xlabel="optimizer.lr", ylabel="training loss, smoothed")
    axes.set_title("no clear fall" if place is None else f"steepest fall at {rates[place]:.2g}")
    if place is not None:
        axes.plot(rates[place], losses[place], "o")
    write_with(picture, lambda part: figure.savefig(part, format="png", dpi=150, bbox_inches="tight"))
    plt.close(figure)
    if place is None:
        log.info(f"no suggestion: the loss never fell steadily; the curve is {shown(picture)}")
        return Outcome()
    log.info(f"suggestion: optimizer.lr={rates[place]:.2g}; the curve is {shown(picture)}")
    return Outcome(None, {"lr": rates[place]})


def progress(parts: Parts) -> dict[str, Any]:
    """How far a fit came, in the keys of result.json."""
    trainer, fit = parts.trainer, parts.trainer.fit_loop
    epochs: Any = fit.epoch_progress.current
    in_epoch = epochs.processed < epochs.started
    batches = fit.epoch_loop.batch_progress.current.completed if in_epoch else 0
    return _progress(trainer.current_epoch, batches, trainer.global_step, parts.task.guard.skipped, parts.record.best)


def saved_progress(checkpoints: Path) -> dict[str, Any]:
    """As `progress`, for a fit that was killed: how far its newest checkpoint came."""
    for which in ("within_epoch", "last"):
        with suppress(DamagedError):  # the checkpoint is damaged, or there is none
            saved = read(checkpoints / f"{which}.ckpt", mmap=True, sums=False)
            batches = saved["within_epoch"]["batches"] if "within_epoch" in saved else 0
            best = saved["callbacks"]["Record"]["best"]
            return _progress(epochs_ended(saved), batches, saved["global_step"], saved["skipped"], best)
    return _progress(0, 0, 0, 0, None)


def _progress(epochs: int, batches: int, steps: int, skipped: int, best: dict[str, Any] | None) -> dict[str, Any]:
    """batches: of the epoch in progress."""
    saved = best and {"epoch": best["epoch"], "path": "checkpoints/best.ckpt"}
    return {"epochs": epochs, "batches": batches, "steps": steps, "skipped": skipped, "best": saved}


def steepest_fall(losses: Sequence[float]) -> int | None:
    """Where a smoothed loss falls fastest between its last peak before the minimum and the minimum.

    None where it falls by less than a twentieth.
    """
    if len(losses) < 3:
        return None
    low = int(np.argmin(losses))
    high = int(np.argmax(losses[: low + 1]))
    if low - high < 2 or losses[low] > 0.95 * losses[high]:
        return None
    return high + int(np.argmin(np.gradient(losses[high : low + 1])))


@contextmanager
def _quiet_unless_terminal() -> Iterator[None]:
    """Drops the bar of Lightning's finder where there is no terminal, since it would print line after line there."""
    if console.is_terminal:
        yield
        return
    with redirect_stderr(io.StringIO()):
        yield


ACTIONS = {
    "fit": fit,
    "validate": validate,
    "test": test,
    "predict": predict,
    "export": export,
    "doctor": doctor,
    "lr_find": lr_find,
}
