"""Samples of a run's data for an export: raw ones, and what the checkpoint answers to them."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from normlab.data.common.base import DataModule
from normlab.errors import ConfigError

CALIBRATION = 256  # training samples


def part_to_test(data: Any) -> str:
    """The part of the data that an exported file is tried on: the test part, or else the validation part."""
    return "test" if is_overridden("test_dataloader", data) else "val"


def raw(data: Any, part: str, places: Tensor) -> Tensor:
    """The samples at these places of a part, before any preprocessing; own data knows them as its loader gives them.

    Own data's are its first, as many as there are places.
    """
    if isinstance(data, DataModule):
        return data.raw_samples(part, places)
    return first_batches(data, part, len(places))[0]


def entry(data: Any) -> Callable[[Tensor], Tensor]:
    """What is done to raw samples before the network."""
    return data.entry() if isinstance(data, DataModule) else torch.nn.Identity()


def first_batches(data: Any, part: str, most: int) -> tuple[Tensor, Tensor]:
    """The first samples of a part, up to `most`, as the network takes them, and their targets."""
    samples, targets, count = [], [], 0
    for x, y, *_ in getattr(data, f"{part}_dataloader")():
        samples.append(x)
        targets.append(y)
        count += len(x)
        if count >= most:
            break
    if not count:
        raise ConfigError(f"action=export: the {part} part of the data gives no samples to try the file on")
    return torch.cat(samples)[:most], torch.cat(targets)[:most]


def calibrating(data: Any) -> Tensor:
    """Raw training samples by which the ranges of 8-bit activations are chosen: the same ones each time."""
    if not isinstance(data, DataModule):
        return raw(data, "train", torch.arange(CALIBRATION))
    places = torch.randperm(len(data.unprepared["train"]), generator=torch.Generator().manual_seed(0))
    return raw(data, "train", places[:CALIBRATION])
