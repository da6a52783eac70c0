"""What every set of images shares: pixels kept as bytes, and random changes of whole batches."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from normlab.data.common.base import FACTS, DataModule
from normlab.data.common.batches import Augment, Mix, Source
from normlab.data.common.portions import Portion
from normlab.data.images.augment import Crop, Cutmix, Cutout, Flip, Mixup, chain
from normlab.data.images.decoding import shaped
from normlab.data.images.files import find_images, find_labelled
from normlab.data.images.gather import Handling, channel_sums, gather
from normlab.data.images.given import as_images
from normlab.data.images.streamed import Files
from normlab.distributed import devices
from normlab.errors import ConfigError

CHUNK = 1024  # images that are summed or resized at a time
PORTION = 2**26  # bytes of new images that are read at once


class Images(DataModule):
    """Images uint8 (N, C, H, W) and their classes; batches are (x / 255 - mean) / std in float32.

    `mean` and `std` (C,) are those of all pixels of the training part, which is measured. `size` resizes the shorter
    side and keeps the middle square, `channels` makes images grey (1) or repeats grey ones (3). Training images are
    changed on the way, each its own way and differently in each epoch: cropped from an image padded by `crop` pixels
    a side (black, or by `crop_edges` mirrored), flipped left to right (`alternating`: see `Flip`), and with a square of
    `cutout` pixels covered by the mean; `mix` is mixup or cutmix, with λ ~ Beta(mix_alpha, mix_alpha).
    """

    task = "classify"
    facts: ClassVar[Sequence[str]] = (*FACTS, "mean", "std")
    how = Handling()  # sets of files choose another
    mean: Sequence[float]  # each channel's mean, where pixels go from 0 to 1
    std: Sequence[float]

    def __init__(
        self,
        size: int | None = None,
        channels: int | None = None,
        crop: int | None = None,
        crop_edges: Literal["black", "reflect"] = "black",
        flip: bool | Literal["alternating"] = False,
        cutout: int | None = None,
        mix: Literal["mixup", "cutmix"] | None = None,
        mix_alpha: float = 1.0,
        **splits: Any,
    ):
        super().__init__(**splits)
        self.size, self.channels = size, channels
        self.crop, self.crop_edges, self.flip, self.cutout = crop, crop_edges, flip, cutout
        self.mix, self.mix_alpha = mix, mix_alpha

    def in_shape(self, loaded: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, tuple[Tensor | Source, Tensor]]:
        """Parts that lie in memory, brought to the wanted size and channels; sets `input_shape`."""
        parts: dict[str, tuple[Tensor | Source, Tensor]] = {}
        if self.size is not None or self.channels is not None:
            self.raw = loaded["train"][0]
        for name, (x, y) in loaded.items():
            if self.size is not None or self.channels is not None:
                x = torch.cat([shaped(chunk, self.size, self.channels) for chunk in x.split(CHUNK)])
            parts[name], self.input_shape = (x, y), tuple(x.shape[1:])
        return parts

    def preprocess(self, train: Any) -> Callable[[Any], Any]:
        """Measures the training part. The images stay as they are; batches are standardised later."""
        sums, pixels = train.pixel_sums() if isinstance(train, Files) else _pixel_sums(train)
        self.mean, self.std = _mean_and_std(sums, pixels)
        return lambda x: x

    def transform(self) -> "Standardise":
        return Standardise(self.mean, self.std)

    def raw_facts(self) -> dict[str, Any]:
        colours = {1: "grey", 3: "red, green, blue"}.get(self.input_shape[0], "channels")
        return {"samples": f"pixels from 0 to 255, {colours}, as they are in a decoded file"}

    def augmentation(self) -> Augment | None:
        samples, changes = len(self.splits["train"][1]), []
        if self.crop is not None:
            reflect = self.crop_edges == "reflect"
            if reflect and self.crop >= min(self.input_shape[1:]):
                raise ConfigError(
                    f"data.crop={self.crop} with data.crop_edges=reflect: images of {self.input_shape[2]}×"
                    f"{self.input_shape[1]} pixels have no more to mirror; set a smaller data.crop="
                )
            changes.append(Crop(samples, self.crop, self.seed, reflect))
        if self.flip:
            changes.append(Flip(samples, self.seed, alternating=self.flip == "alternating"))
        if self.cutout is not None:
            mean = (255 * torch.tensor(self.mean)).round()
            changes.append(Cutout(samples, self.cutout, self.input_shape[1:], mean, self.seed))
        return chain(changes)

    def mixing(self) -> Mix | None:
        samples = len(self.splits["train"][1])
        if self.mix == "mixup":
            return Mixup(samples, self.out_features, self.mix_alpha, self.seed)
        if self.mix == "cutmix":
            return Cutmix(samples, self.out_features, self.mix_alpha, self.input_shape[1:], self.seed)
        return None

    def read_new(self, path: Path, labelled: bool = False) -> Iterator[Portion]:
        """One image file, or all under a folder, with their names in it; in the shape of the training images.

        Labelled ones lie in a folder of each class.
        """
        if not path.exists():
            raise ConfigError(f"input={path}: no such file or folder")
        root, names, labels = find_labelled(path, self.class_names) if labelled else (*find_images(path), None)
        how = replace(self.handling(channels=self.input_shape[0]), in_memory=True)
        at_once = max(self.batch_size, PORTION // math.prod(self.input_shape))
        for start in range(0, len(names), at_once):
            images, survey = gather(root, names[start : start + at_once], how)
            assert isinstance(images, Tensor)
            self._check_size(images, f"input={path}")
            places = [start + place for place in survey.readable]
            y = None if labels is None else torch.tensor([labels[place] for place in places])
            yield Portion(images, [names[place] for place in places], y)

    def take_new(self, given: Any) -> Portion:
        """Pictures of Pillow's, or an array uint8 of images: (N, C, H, W), (N, H, W, C), or (N, H, W) of grey ones.

        A single picture is a list of one. Rows (N, C·H·W) are images in the shape that the network takes.
        """
        images = as_images(given, self.input_shape, self.size)
        self._check_size(images, "X")
        return Portion(images, [str(number + 1) for number in range(len(images))])

    def _check_size(self, images: Tensor, where: str) -> None:
        (height, width), (wanted_height, wanted_width) = images.shape[2:], self.input_shape[1:]
        if (height, width) != (wanted_height, wanted_width):
            raise ConfigError(
                f"{where}: images of {width}×{height} pixels; the network was trained on "
                f"{wanted_width}×{wanted_height}: resize them"
            )

    def handling(self, channels: int | None) -> Handling:
        """How files are read in this process, which may be one of several on this machine."""
        processes = max(1, self.processes // devices.nodes())
        return replace(self.how, size=self.size, channels=channels, processes=processes)

    def teardown(self, stage: str | None = None) -> None:
        for x, _ in self.splits.values():
            if isinstance(x, Files):
                x.close()

    def _placed(self, split: str) -> tuple[Any, Tensor]:
        x, y = super()._placed(split)
        if isinstance(x, Files):
            x.device = self._device()
        return x, y


class Standardise:
    """x ↦ (x / 255 - mean) / std for images (B, C, H, W), in float32 on their device."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        constants = torch.tensor([mean, std], dtype=torch.float64)[:, :, None, None]
        self.mean, self.scale = (255 * constants[0]).float(), (1 / (255 * constants[1])).float()

    def __call__(self, x: Tensor) -> Tensor:
        if self.mean.device != x.device:
            self.mean, self.scale = self.mean.to(x.device), self.scale.to(x.device)
        return x.float().sub_(self.mean).mul_(self.scale)


def _pixel_sums(images: Tensor) -> tuple[Tensor, int]:
    """Sums of all pixels and of their squares, (2, C), and how many there are in a channel."""
    sums = torch.stack([channel_sums(chunk) for chunk in images.split(CHUNK)]).sum(0)
    return sums, len(images) * math.prod(images.shape[2:])


def _mean_and_std(sums: Tensor, pixels: int) -> tuple[list[float], list[float]]:
    """Mean and deviation of pixels from 0 to 1, by sums of whole numbers, in which nothing cancels.

    A constant channel gets the deviation 1.
    """
    mean, std = [], []
    for total, squares in sums.T.tolist():
        variance = pixels * squares - total**2  # exact
        mean.append(total / pixels / 255)
        std.append(math.sqrt(variance) / pixels / 255 or 1.0)
    return mean, std
