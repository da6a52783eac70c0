"""The network of a finished run, to be asked from Python: without a trainer, from as many threads as one likes."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor, nn

from normlab.config.instantiate import make
from normlab.data.common.base import DataModule
from normlab.data.common.given import was_given
from normlab.data.common.portions import Portion
from normlab.errors import ConfigError
from normlab.folder.checkpoints import load_weights
from normlab.logs import quiet_lightning
from normlab.models.common.head import head
from normlab.norms.common.probe import check_forward
from normlab.runner.build import uses_channels_last
from normlab.runner.inputs import NewBatches, looking
from normlab.runner.network import make_network
from normlab.runner.task import make_task
from normlab.runner.trainer import stop_probing


class Answering:
    """A run's network in evaluation mode, with the preprocessing that was fitted on its training part.

    config: the run's own. Raises ConfigError for a run whose data normlab does not read, and for a checkpoint of
    another network. Random numbers and flags of torch stay as they were.
    """

    def __init__(self, config: DictConfig, folder: Path, checkpoint: Path):
        config.action = "predict"
        self.data = _restored(config, folder)
        with isolate_rng():
            network = make_network(config, self.data, make(config, "norm"))
            norm_inputs = check_forward(network, self.data.input_shape, self.data.out_features)
            self.task = make_task(config, network, self.data, None)
        self.look = looking(network, norm_inputs, self.data.input_shape, "X")
        trainer = _trainer(config)
        self.device, self.precision = trainer.strategy.root_device, trainer.precision_plugin
        if uses_channels_last(config, network, self.device.type):
            network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.precision.convert_module(self.task)
        load_weights(self.task, checkpoint)
        self.task.to(self.device).eval()
        # A whole precision is a default of torch's for all threads.
        self.turns = threading.Lock() if str(config.trainer.precision).endswith("true") else nullcontext()
        self.features = Features(network)

    def answers(self, given: Any) -> Tensor:
        """Probabilities (N, classes), those of labels (N, columns), or numbers (N, columns).

        given: a path or several, or what the data set takes from Python. Raises ConfigError for what cannot be read,
        and where the network answers with NaN or inf.
        """
        answers, start = [], 0
        for x in self._batches(given):
            answer, _, cause = self._asked(x)
            if cause is not None:
                bad = torch.nonzero(~torch.isfinite(answer).all(1)).flatten().tolist()
                raise ConfigError(
                    f"X: the network answers {len(bad)} of the {len(x)} samples from sample {start + 1} on with NaN or "
                    f"inf, first sample {start + bad[0] + 1}: {cause}"
                )
            answers.append(answer.cpu())
            start += len(x)
        return torch.cat(answers)

    def inputs_of_head(self, given: Any) -> Tensor:
        """What the network's last layer is given, (N, features): a convolution's maps as their means over space."""
        features = []
        for x in self._batches(given):
            with self.features.noted() as seen:
                self._asked(x)
            features.append(torch.cat([_flat(each) for each in seen], dim=1).float().cpu())
        return torch.cat(features)

    def _asked(self, x: Tensor) -> tuple[Tensor, Tensor | None, str | None]:
        with self.turns, torch.inference_mode(), self.precision.predict_step_context():
            return self.task.predict_step(self.precision.convert_input(x).to(self.device), 0)

    def _batches(self, given: Any) -> Iterator[Tensor]:
        transform, size = self.data.transform(), self.data.batch_size
        return (x for x, _ in NewBatches(lambda: self._portions(given), size, transform, self.look, "X"))

    def _portions(self, given: Any) -> Iterator[Portion]:
        if isinstance(given, Image.Image):
            given = [given]
        if isinstance(given, str | Path):
            given = [given]
        if isinstance(given, Sequence) and given and all(isinstance(each, str | Path) for each in given):
            return chain.from_iterable(self.data.read_new(Path(each)) for each in given)
        return iter([self.data.take_new(given)])


class Features:
    """What a network's head is given, for the thread that asks; its hooks stay, since others may be asking too."""

    def __init__(self, network: nn.Module):
        self.here = threading.local()
        top = head(network)
        for layer in top if isinstance(top, nn.ModuleList) else [top]:
            layer.register_forward_pre_hook(self._note)

    @contextmanager
    def noted(self) -> Iterator[list[Tensor]]:
        """A list of what the head is given in this context, in this thread."""
        self.here.seen = []
        try:
            yield self.here.seen
        finally:
            del self.here.seen

    def _note(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if hasattr(self.here, "seen"):
            self.here.seen.append(inputs[0])


def _flat(x: Tensor) -> Tensor:
    return x.mean((2, 3)) if x.ndim == 4 else x.flatten(1)


def _restored(config: DictConfig, folder: Path) -> DataModule:
    data = None if was_given(config) else make(config, "data")
    if not isinstance(data, DataModule):
        raise ConfigError(
            f"normlab.load: the data of {folder} is a person's own, and what was done to it is not in the folder: load "
            "the weights by torch.load(…, weights_only=True)['state_dict'] into the network"
        )
    data.restore(folder)
    return data


def _trainer(config: DictConfig) -> Trainer:
    """Knows the device and the precision; trains nothing. A run of a GPU is asked on the CPU where there is none."""
    quiet_lightning()
    stop_probing()
    off: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    made = {"devices": 1, "precision": config.trainer.precision, **off}
    try:
        return Trainer(accelerator=config.trainer.accelerator, **made)
    except MisconfigurationException:
        return Trainer(accelerator="auto", **made)
