"""The networks of a finished run, built as the run built them, with its data."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from normlab.callbacks.common.changing import Changing
from normlab.config.compose import of_run
from normlab.data.common.base import DataModule
from normlab.data.common.seeds import kept_random_state
from normlab.doctor.samples import Batch, regrouped
from normlab.errors import ConfigError
from normlab.folder.checkpoints import load_weights
from normlab.folder.identity import TRAINING_CALLBACKS
from normlab.folder.keep import check_kept
from normlab.folder.place import shown
from normlab.logs import no_logging, quietly
from normlab.norms.common.fold import KINDS
from normlab.norms.common.population import declared_or_batch
from normlab.runner.doctor import SentBatches, marking
from normlab.runner.rehearsal import build_bare
from normlab.tasks.optimizers import rate

LARGE = 256  # samples of a batch in evaluation, where answers do not depend on the batch


class Networks:
    """The network of a run as its training began, and as its checkpoints have it.

    Raises ConfigError for a run on data that normlab does not read, and for one of several processes.
    """

    def __init__(self, folder: Path):
        self.folder, self.name, config = folder, shown(folder), of_run(folder, ())
        if config.trainer.devices != 1 or config.trainer.num_nodes != 1:
            raise ConfigError(f"{self.name} was trained by several processes; runs of trainer.devices=1 are measured")
        config.compile = False  # which would take longer than it saves
        self.config = config
        self.parts = build_bare(config, folder, TRAINING_CALLBACKS)
        if not isinstance(self.parts.data, DataModule):
            raise ConfigError(f"{self.name} has own data, whose training part is not known without its augmentation")
        self.data, self.task, self.marking = self.parts.data, self.parts.task, marking(self.parts)
        self.task.to(self.parts.trainer.strategy.root_device)
        self.untrained = copy.deepcopy(self.task.network)

    def at_start(self) -> nn.Module:
        """A copy of the network with its initial weights, in training, with all that callbacks do to it then.

        Raises ConfigError for a run that began with other weights than those that its seed gives.
        """
        if self.config.init is not None:
            raise ConfigError(f"{self.name} began with init={self.config.init}; initial weights of a seed are measured")
        network = copy.deepcopy(self.untrained).train()
        for callback in self.parts.trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
            if isinstance(callback, Changing):
                callback.change(network)
        return network

    @cached_property
    def best(self) -> nn.Module:
        """The network of the best checkpoint, in evaluation mode. Raises ConfigError where the run has none."""
        return self._checkpoint("best")

    @cached_property
    def last(self) -> nn.Module:
        """The network of the last checkpoint, in evaluation mode. Raises ConfigError where the run has none."""
        return self._checkpoint("last")

    def _checkpoint(self, which: str) -> nn.Module:
        file = self.folder / "checkpoints" / f"{which}.ckpt"
        check_kept(file, self.config.keep, f"a measure of {self.name}")
        if not file.is_file():
            raise ConfigError(f"{self.name} has no checkpoint {which}, which this measure is taken of")
        load_weights(self.task, file)
        return copy.deepcopy(self.task.network).eval()

    def training_batches(self, most: int) -> list[Batch]:
        """The first batches of the training, at most so many, as its first epoch has them."""
        return list(islice(SentBatches(self.parts, self.parts.loaders.train_dataloader()), most))

    def training_part(self) -> list[Batch]:
        """The samples of the first epoch, without augmentation and mixing, in its order and batches."""
        loader = self.data.train_dataloader()
        loader.augment = loader.mix = None
        return list(SentBatches(self.parts, loader))

    def test_part(self) -> list[Batch]:
        """The samples of the test part. Raises ConfigError for a run that left them alone."""
        if not self.parts.test:
            raise ConfigError(f"{self.name} left the test part alone (test=false), and so do its measures")
        return list(SentBatches(self.parts, self.parts.loaders.test_dataloader()))

    def accuracy(self, network: nn.Module, batches: Iterable[Batch]) -> float:
        """The share of right answers of a network in the modes that it is in; one that is not finite is wrong.

        Raises ConfigError for a run without classes.
        """
        if self.data.task != "classify":
            raise ConfigError(f"{self.name} has no classes, whose accuracy this measure is of")
        right, samples = torch.zeros((), dtype=torch.long), 0
        with torch.no_grad():
            for batch in batches:
                output = self.marking.forward(network, batch)
                hits = (output.argmax(1) == self.marking.label(batch[1])) & output.isfinite().all(1)
                right, samples = right + hits.sum().cpu(), samples + len(hits)
        return right.item() / samples

    def grouped(self, batches: list[Batch]) -> list[Batch]:
        """The same samples for evaluation, in large batches where answers do not depend on the samples beside."""
        declared = map(declared_or_batch, self.untrained.modules())
        if any(each is not None and each.batch_stats and not each.running_stats for each in declared):
            return batches
        return regrouped(batches, max(LARGE, self.data.batch_size))

    def rate(self) -> float:
        """The learning rate that the run's optimizer is made with. Raises ConfigError where it has none."""
        lr = rate(self.task.make_optimizer)
        if lr is None:
            raise ConfigError(f"{self.name} has no optimizer.lr, which this measure takes its steps by")
        return lr

    def gradients(self, network: nn.Module, batch: Batch, of: Sequence[Tensor]) -> list[Tensor]:
        """The gradients of a batch's mean loss."""
        output = self.marking.forward(network, batch).float()
        loss = self.task.loss(output, batch[1])
        return [*torch.autograd.grad(loss, of, allow_unused=True, materialize_grads=True)]


def weights(network: nn.Module) -> list[Tensor]:
    """The weights of the convolutions and linear layers that train, in the order in which these were registered."""
    found = dict.fromkeys(module.weight for module in network.modules() if isinstance(module, KINDS))
    return [weight for weight in found if weight.requires_grad]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keeps random numbers, messages and threads as they are while networks are built and asked, on one thread.

    Small networks are quickest so beside other work, and values then do not depend on the number of cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with kept_random_state(torch.device("cuda" if torch.cuda.is_available() else "cpu")), quietly(), no_logging():
            yield
    finally:
        torch.set_num_threads(threads)
