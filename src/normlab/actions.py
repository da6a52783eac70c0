"""What a run does with its parts: fit, validate, test, or look for a learning rate."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch.tuner.tuning import Tuner
from lightning.pytorch.utilities.model_helpers import is_overridden

from normlab.build import Parts
from normlab.checkpoints import load_weights
from normlab.folder import shown

log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """The score, where the action has one, and what was measured."""

    score: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    best: dict[str, Any] | None = None


def fit(parts: Parts, checkpoint: Path | None, folder: Path) -> Outcome:
    """Trains, from the last checkpoint where there is one, then tests the best."""
    trainer, record = parts.trainer, parts.record
    last = record.path("last")
    if last.is_file():
        log.info(f"resuming from {shown(last)}")
    trainer.fit(parts.task, datamodule=parts.data, ckpt_path=last if last.is_file() else None, weights_only=True)
    if record.best is None:  # trainer.max_steps ended the run before its first validation
        record.adopt_last(trainer.validate(parts.task, datamodule=parts.data, verbose=False)[0])
    best = record.best
    assert best is not None
    load_weights(parts.task, record.path("best"))
    metrics = dict(best["metrics"])
    if is_overridden("test_dataloader", parts.data):
        metrics |= trainer.test(parts.task, datamodule=parts.data, verbose=False)[0]
    where = {"epoch": best["epoch"], "path": str(record.path("best").relative_to(folder))}
    return Outcome(best["score"], metrics, where)


def validate(parts: Parts, checkpoint: Path, folder: Path) -> Outcome:
    """Measures a checkpoint on the validation split."""
    load_weights(parts.task, checkpoint)
    metrics = dict(parts.trainer.validate(parts.task, datamodule=parts.data, verbose=False)[0])
    return Outcome(metrics.get(parts.record.score), metrics)


def test(parts: Parts, checkpoint: Path, folder: Path) -> Outcome:
    """Measures a checkpoint on the test split."""
    load_weights(parts.task, checkpoint)
    return Outcome(None, dict(parts.trainer.test(parts.task, datamodule=parts.data, verbose=False)[0]))


def lr_find(parts: Parts, checkpoint: Path | None, folder: Path) -> Outcome:
    """Raises the learning rate step by step until the loss grows; draws the curve and suggests a rate.

    The suggestion is where the loss falls fastest. Smith, Cyclical Learning Rates, 2017, arXiv:1506.01186.
    """
    if checkpoint is not None:
        load_weights(parts.task, checkpoint)
    tuner = Tuner(parts.trainer)
    finder = tuner.lr_find(parts.task, datamodule=parts.data, min_lr=1e-6, max_lr=10, update_attr=False)
    assert finder is not None
    suggestion = finder.suggestion()
    figure: Any = finder.plot(suggest=suggestion is not None)
    figure.axes[0].set_title("the point marks where the loss falls fastest" if suggestion else "no suggestion")
    figure.savefig(folder / "lr_find.png", dpi=150, bbox_inches="tight")
    if suggestion is None:
        log.info(f"no suggestion: the loss never fell steadily; see {shown(folder / 'lr_find.png')}")
        return Outcome()
    log.info(f"suggestion: optimizer.lr={suggestion:.2g}; the curve is {shown(folder / 'lr_find.png')}")
    return Outcome(None, {"lr": suggestion})


ACTIONS = {"fit": fit, "validate": validate, "test": test, "lr_find": lr_find}
