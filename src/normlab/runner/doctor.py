"""The doctor's look at a run: the network of its checkpoint, its data, and what the run says of its training."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn

from normlab.data.common.domains import domain_of
from normlab.data.common.loaders import Chunk
from normlab.doctor.diagnose import diagnosis
from normlab.doctor.finding import Diagnosis
from normlab.doctor.marks import Measure
from normlab.errors import ConfigError
from normlab.folder.place import shown
from normlab.folder.writing import make_folder, write_text
from normlab.norms.domain import set_domain
from normlab.runner.build import Parts

log = logging.getLogger(__name__)


def examine(parts: Parts, folder: Path) -> Diagnosis:
    """Writes doctor.json into `folder` and says what was found.

    Raises ConfigError where there is nothing to look at; nothing is written then.
    """
    task, trainer = parts.task, parts.trainer
    assert parts.facts is not None
    network = task.network
    assert isinstance(network, nn.Module)
    task.to(trainer.strategy.root_device)
    loaders = parts.loaders
    train = SentBatches(parts, loaders.train_dataloader())
    test = SentBatches(parts, loaders.test_dataloader() if _has_test(parts) else loaders.val_dataloader())
    try:
        made = diagnosis(network, train, test, marking(parts), parts.facts())
    except ValueError as error:
        raise ConfigError(str(error)) from error
    file = folder / "doctor.json"
    write_text(file, json.dumps(made.as_json(), indent=2, ensure_ascii=False) + "\n")
    log.info(f"{made}\n{shown(file)}")
    return made


def examine_fit(parts: Parts, folder: Path) -> None:
    """Looks at the best checkpoint of a fit that has ended; where there is nothing to look at, it says so."""
    out = folder / "doctor"
    make_folder(out)
    try:
        examine(parts, out)
    except ConfigError as error:
        log.warning(f"doctor=true: {error}")


def marking(parts: Parts) -> Measure:
    """How a run's own network answers a batch, in its precision, and how its answers are marked."""

    def forward(network: nn.Module, batch: Any) -> Tensor:
        x, _, *domain = batch
        if domain:
            set_domain(network, domain_of(domain[0]))
        with parts.trainer.precision_plugin.forward_context():
            return network(x)

    return Measure(forward, parts.task.loss, parts.task.label)


def _has_test(parts: Parts) -> bool:
    """Whether the test part may be looked at: `test=false` leaves it alone."""
    return parts.test and is_overridden("test_dataloader", parts.data)


class SentBatches:
    """The batches of a loader as the task would be given them."""

    def __init__(self, parts: Parts, loader: Any):
        self.parts, self.loader = parts, loader
        parts.loaders.trainer = parts.trainer  # own data looks at it

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        precision, loaders, device = (
            self.parts.trainer.precision_plugin,
            self.parts.loaders,
            self.parts.trainer.strategy.root_device,
        )
        for batch in self.loader:
            for single in batch if isinstance(batch, Chunk) else [batch]:
                sent = loaders.on_before_batch_transfer(precision.convert_input(single), 0)
                sent = loaders.transfer_batch_to_device(sent, device, 0)
                yield _with_domains(loaders.on_after_batch_transfer(sent, 0))


def _with_domains(batch: Any) -> Any:
    """A batch with its domain beside each sample, where it is one number: the doctor cuts batches into parts."""
    if not isinstance(batch, tuple) or not isinstance(batch[-1], int):
        return batch
    *tensors, domain = batch
    return (*tensors, torch.full((len(tensors[0]),), domain, device=tensors[0].device))
