"""What each norm layer holds and does while a run trains.  python train.py callbacks=recorder"""

import logging
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from normlab.data.common.seeds import kept_random_state
from normlab.errors import ConfigError
from normlab.folder.recorded import FILE, append_recorded, cut_recorded
from normlab.folder.writing import sync_files
from normlab.norms.common.watched import Seen, Watch, measures, scale_free

log = logging.getLogger(__name__)

# The measures that go to the loggers too; the others would bury them.
LOGGED = ("drift", "variance_ratio", "dead", "saturated", "spread", "gradient", "effective_rate")
AT_ONCE = 1000  # the most values that MLflow takes in one call


class Recorder(Callback):
    """Writes a row for each norm layer to norms.csv in every `every`-th step, and its main measures to the loggers.

    A row's `step` is the number of optimizer steps taken before: its values are of the weights after so many steps, of
    the batch of the next one, and of the running statistics before that batch moved them. docs/statistics.md says what
    each column means. Layers of normlab, torch and other libraries are recorded; a cell is empty where a layer lacks
    what it is of, as the drift of a layer without running statistics.

    Training is as without it, since a layer is watched by hooks that only look, and that are there in recorded steps
    alone. Under `compile=true` the recorded steps run as they are written, as compiled code calls no hooks; weights are
    then those of a run without it up to rounding. With several processes the first one records its own share of the
    batch; gradients are those of all. Where batches are accumulated, the last one before the step is recorded. A batch
    that nonfinite=skip leaves out has no row. Gradients are those before `trainer.gradient_clip_val`.

    A run that goes on cuts the rows of the steps that it takes again. Raises ConfigError for a network without norm
    layers.
    """

    def __init__(self, run_folder: Path, every: int = 50):
        self.file, self.every = run_folder / FILE, every
        self.watch = Watch(nn.Identity())
        self.step = ExitStack()  # what is undone when the step in progress is recorded
        self.seen: dict[str, Seen] | None = None  # what was seen in it; None: it is not recorded
        self.scale_free: dict[str, list[Tensor]] | None = None  # by layer; None: not looked for yet
        self.is_synced = True

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network = pl_module.network
        assert isinstance(network, nn.Module)
        self.watch = Watch(network)
        if not self.watch.layers:
            raise ConfigError("callbacks=recorder: this network has no norm layer; leave it out")
        if trainer.is_global_zero:
            cut_recorded(self.file, trainer.global_step)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step % self.every or not trainer.is_global_zero:
            return
        if trainer.fit_loop.epoch_loop._should_accumulate():
            return
        network = pl_module.network
        assert isinstance(network, nn.Module)
        if network._compiled_call_impl is not None:
            self.step.enter_context(torch.compiler.set_stance("force_eager"))
        if self.scale_free is None:
            with kept_random_state(pl_module.device):
                self.scale_free = self._look_for_scale_free(network, batch[0][:2])
        self.seen = self.step.enter_context(self.watch.running())

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if self.seen is None:
            return
        seen, self.seen = self.seen, None
        self.step.close()
        if pl_module.guard.leaves_out:  # pyright: ignore[reportAttributeAccessIssue]
            return
        measured = {name: self._measured(name, each, optimizer) for name, each in seen.items()}
        rows = _in_numbers(measured)
        step = trainer.global_step
        place = {"step": step, "epoch": trainer.current_epoch}
        append_recorded(self.file, [{**place, "layer": name, **row} for name, row in rows.items()])
        self.is_synced = False
        values = {f"norm_{key}/{name}": row[key] for name, row in rows.items() for key in LOGGED if key in row}
        for logger in trainer.loggers:
            for some in _cut(values, AT_ONCE):
                logger.log_metrics(some, step)

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Brings the rows onto the disk before a checkpoint that comes after them."""
        if not self.is_synced:
            sync_files(self.file)
            self.is_synced = True

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.step.close()
        self.seen = None

    def _look_for_scale_free(self, network: nn.Module, sample: Tensor) -> dict[str, list[Tensor]]:
        try:
            return scale_free(network, self.watch.layers, sample)
        except ValueError as error:
            log.info(f"callbacks=recorder leaves the effective rates empty: {error}")
            return {}

    def _measured(self, name: str, seen: Seen, optimizer: Optimizer) -> dict[str, Tensor]:
        assert self.scale_free is not None
        numbers = measures(seen)
        gradients = [each.grad for each in seen.layer.parameters() if each.grad is not None]
        if gradients:
            numbers["gradient"] = _norm(gradients)
        weights = self.scale_free.get(name, [])
        rate = _rate_of(weights[0], optimizer) if weights else None
        if rate is not None:
            numbers["effective_rate"] = rate / _norm(weights) ** 2
        return numbers


@torch.no_grad()
def _norm(tensors: Iterable[Tensor]) -> Tensor:
    """The norm of all values of some tensors."""
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(each.float()) for each in tensors]))


def _rate_of(weight: Tensor, optimizer: Optimizer) -> float | None:
    """The learning rate of a parameter now; None where the optimizer does not have it."""
    groups = (group for group in optimizer.param_groups if any(each is weight for each in group["params"]))
    return next((float(group["lr"]) for group in groups), None)


def _in_numbers(measured: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, float]]:
    """Tensors as numbers, which are fetched from a device at once."""
    flat = [value.float() for numbers in measured.values() for value in numbers.values()]
    fetched = iter(torch.stack(flat).tolist() if flat else [])
    return {name: {key: next(fetched) for key in numbers} for name, numbers in measured.items()}


def _cut(values: dict[str, float], most: int) -> Iterable[dict[str, float]]:
    items = [*values.items()]
    return (dict(items[first : first + most]) for first in range(0, len(items), most))
