"""Watches a network answer: keeps all answers, and the samples with the highest loss."""

import heapq
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from normlab.data.common.base import DataModule
from normlab.data.tables.frames import FrameTable
from normlab.errors import ConfigError
from normlab.report.single.answers import Sample

MOST = 12  # samples that are kept
WIDEST = 160  # pixels of a picture


class Watch(Callback):
    """Keeps what a task answers in prediction, on the CPU.

    target_std: of the target's columns, in regression, by which errors of several columns can be compared.
    """

    def __init__(self, target_std: Tensor | None):
        self.target_std = target_std
        self.targets: list[Tensor] = []
        self.answers: list[Tensor] = []
        self.heap: list[tuple[float, int, Tensor]] = []  # (loss, −place, sample)
        self.samples = 0

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *which: int
    ) -> None:
        answer, target, cause = outputs
        if target is None:
            raise ConfigError("the samples have no targets to compare the answers with.")
        if cause is not None:
            raise FloatingPointError(f"the network answers with NaN or inf: {cause}")
        answer, target = answer.cpu(), pl_module.label(target).cpu()  # pyright: ignore[reportCallIssue]
        self.targets.append(target)
        self.answers.append(answer)
        loss = losses(answer, target, self.target_std)
        for place in loss.argsort(descending=True, stable=True)[:MOST].tolist():
            entry = (float(loss[place]), -(self.samples + place))
            if len(self.heap) == MOST and entry < self.heap[0][:2]:
                break
            kept = (*entry, batch[0][place].detach().cpu())
            (heapq.heappush if len(self.heap) < MOST else heapq.heappushpop)(self.heap, kept)
        self.samples += len(target)

    def all(self) -> tuple[np.ndarray, np.ndarray]:
        """The targets, (N,) or (N, columns), and the answers (N, …)."""
        if not self.samples:
            raise ConfigError("the part holds no samples.")
        truth, said = torch.cat(self.targets).numpy(), torch.cat(self.answers).double().numpy()
        return (truth.reshape(said.shape) if truth.dtype.kind == "f" else truth), said

    def worst(self) -> list[tuple[float, int, Tensor]]:
        """(loss, place, sample), the highest loss first; of equal ones the first sample."""
        return [(loss, -place, x) for loss, place, x in sorted(self.heap, key=lambda entry: entry[:2], reverse=True)]


def losses(answer: Tensor, target: Tensor, target_std: Tensor | None) -> Tensor:
    """The loss (N,) of each answer: cross-entropy, the mean one of labels, or the mean squared standardised error."""
    answer = answer.double()
    if target_std is not None:
        return (((answer - target.reshape(answer.shape)) / target_std.cpu()) ** 2).mean(1)
    smallest = torch.finfo(torch.float32).tiny
    if target.ndim == 1:
        return -answer.gather(1, target[:, None]).clamp(min=smallest).log().squeeze(1)
    return F.binary_cross_entropy(answer, target.double(), reduction="none").mean(1)


def sample(
    data: Any, x: Tensor, loss: float, place: int, names: Sequence[str] | None, kept: Mapping[str, Sequence[Any]]
) -> Sample:
    """A sample as a person can look at it.

    x: as the network takes it. names: of all samples; None numbers them from 1. kept: the columns that predictions
    carry, with a value for each sample.
    """
    shown: dict[str, Any]
    if x.ndim == 3 and x.shape[0] in (1, 3):
        shown = {"picture": _png(_pixels(data, x))}
    elif x.ndim == 1:
        cells = {key: str(values[place]) for key, values in kept.items()} | dict(_values(data, x))
        shown = {"values": [*cells.items()], "prepared": not _has_units(data)}
    else:
        shown = {"other": f"a sample of shape {tuple(x.shape)}"}
    return Sample(place, str(place + 1) if names is None else str(names[place]), loss, **shown)


def _has_units(data: Any) -> bool:
    """Whether samples can be turned back into what they were before they were prepared."""
    standardised = isinstance(data, DataModule) and all(hasattr(data, name) for name in ("mean", "std"))
    return standardised or isinstance(data, FrameTable)


def _pixels(data: Any, x: Tensor) -> np.ndarray:
    """uint8 (H, W) or (H, W, 3): as the image was, or, where that is unknown, from its lowest value to its highest."""
    x = x.double()
    if _has_units(data):
        mean, std = (torch.tensor(value, dtype=torch.float64).reshape(-1, 1, 1) for value in (data.mean, data.std))  # pyright: ignore
        x = x * std + mean
    else:
        low, high = x.min(), x.max()
        x = (x - low) / (high - low).clamp(min=1e-12)
    pixels = (x.clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels.permute(1, 2, 0).numpy().squeeze(2) if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy()


def _png(pixels: np.ndarray) -> bytes:
    image = Image.fromarray(pixels)
    if max(image.size) > WIDEST:
        image.thumbnail((WIDEST, WIDEST))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _values(data: Any, x: Tensor) -> list[tuple[str, str]]:
    """The cells of a row, in the units of its table where these are known."""
    if isinstance(data, FrameTable):
        return data.preprocessing.cells(x.numpy())
    names = getattr(data, "feature_names", None) or [f"feature {number}" for number in range(1, len(x) + 1)]
    if _has_units(data):
        x = x.double() * torch.tensor(data.std).double() + torch.tensor(data.mean).double()  # pyright: ignore
    return [(str(name), f"{value:.5g}") for name, value in zip(names, x.tolist(), strict=True)]
