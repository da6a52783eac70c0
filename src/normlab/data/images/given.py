"""Images from Python, as Pillow's pictures or as arrays, in the form that image files are read in."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from normlab.data.images.decoding import ImageError, pixels_of, shaped
from normlab.errors import ConfigError

EXPECTED = "expected pictures of Pillow's, or an array uint8 (N, C, H, W), (N, H, W, C) or (N, H, W) with pixels to 255"


def as_images(given: Any, wanted: Sequence[int], size: int | None) -> Tensor:
    """Images uint8 (N, C, H, W) with the channels of `wanted` (C, H, W), resized to `size` where that is given.

    Rows (N, C·H·W) are images of the shape `wanted`. Raises ConfigError for anything else.
    """
    if isinstance(given, Sequence) and given and all(isinstance(picture, Image.Image) for picture in given):
        return _stacked([shaped(_decoded(picture, place), size, wanted[0]) for place, picture in enumerate(given)])
    pixels = np.asarray(given)
    if pixels.dtype != np.uint8:
        raise ConfigError(f"X has values of type {pixels.dtype}; {EXPECTED}")
    if pixels.ndim == 2 and pixels.shape[1] == math.prod(wanted):
        pixels = pixels.reshape(-1, *wanted)
    # A copy, since torch would warn of an array that is read-only. In this order convolutions compute as for files.
    x = torch.from_numpy(np.array(pixels, order="C"))
    if x.shape[1:] == torch.Size(wanted):
        return x
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[-1] in (1, 3):
        x = x.permute(0, 3, 1, 2)
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ConfigError(f"X has the shape {tuple(pixels.shape)}; {EXPECTED}")
    return shaped(x.contiguous(), size, wanted[0])


def _decoded(picture: Image.Image, place: int) -> Tensor:
    try:
        return pixels_of(picture)
    except ImageError as error:
        raise ConfigError(f"X: picture {place + 1} cannot be read: {error}") from error


def _stacked(images: Sequence[Tensor]) -> Tensor:
    shapes = [tuple(image.shape) for image in images]
    if other := next((shape for shape in shapes if shape != shapes[0]), None):
        raise ConfigError(f"X: pictures of different sizes, such as {shapes[0][1:]} and {other[1:]}: resize them")
    return torch.stack([*images])
