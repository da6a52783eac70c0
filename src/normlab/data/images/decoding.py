"""Image files into pixels: one way for training, in memory and streamed, and for prediction."""

import io

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
GREY = ("1", "L", "LA", "La")
ORIENTATION = 0x0112  # the EXIF tag
LUMA = (19595, 38470, 7471)  # ITU-R 601-2 in 1/65536, as Pillow's convert("L") rounds it


class ImageError(ValueError):
    """A file that cannot be read as an image; the message says why, and not which."""


def read(file: str) -> Tensor:
    """The pixels of an image file, as `decode` has them. Raises ImageError."""
    return decode(content(file))


def content(file: str) -> bytes:
    """The bytes of a file. Raises ImageError."""
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except OSError as error:
        raise ImageError(_line(error.strerror or error)) from error


def decode(stored: bytes) -> Tensor:
    """The pixels of an image that is stored in a format of Pillow's, uint8 (3, H, W), or (1, H, W) of a grey one.

    Upright as its EXIF orientation says; CMYK becomes RGB; a palette is looked up; transparency is dropped, the colours
    beneath it stay; of 16 bits the upper eight are kept; of several frames the first. Raises ImageError.
    """
    try:
        with Image.open(io.BytesIO(stored)) as opened:
            return pixels_of(opened)
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise ImageError("no image" if stored else "the file is empty") from error
    except OSError as error:
        raise ImageError(_line(error.strerror or error)) from error
    except Exception as error:  # a decoder may answer damaged bytes with anything
        raise ImageError(_line(error)) from error


def pixels_of(picture: Image.Image) -> Tensor:
    """As `decode`, of an opened picture. Raises what its decoder raises."""
    picture.load()
    turned = picture.getexif().get(ORIENTATION, 1) != 1
    pixels = _pixels(ImageOps.exif_transpose(picture) if turned else picture)
    return torch.from_numpy(np.atleast_3d(pixels).transpose(2, 0, 1).copy())


def shaped(x: Tensor, size: int | None, channels: int | None) -> Tensor:
    """Pixels (..., C, H, W) in `channels`, with the shorter side resized to `size` and the middle square kept.

    Resized as torchvision does, bilinear with antialias; None leaves them as they are.
    """
    if channels == 1 and x.shape[-3] == 3:
        weights = torch.tensor(LUMA, dtype=torch.int32, device=x.device)[:, None, None]
        x = ((x.int() * weights).sum(-3, keepdim=True) + 32768 >> 16).to(torch.uint8)
    height, width = x.shape[-2:]
    if size is not None and (height, width) != (size, size):
        shorter = min(height, width)
        height, width = size * height // shorter, size * width // shorter
        batch = x if x.ndim == 4 else x[None]
        batch = F.interpolate(batch, (height, width), mode="bilinear", antialias=True)
        top, left = round((height - size) / 2), round((width - size) / 2)
        x = batch[..., top : top + size, left : left + size].reshape(*x.shape[:-2], size, size)
    return x.expand(*x.shape[:-3], 3, -1, -1) if channels == 3 else x


def _pixels(image: Image.Image) -> np.ndarray:
    """(H, W) of a grey image, else (H, W, 3)."""
    if image.mode in ("I", "F"):
        raise ImageError("pixels of 32 bits, whose range is unknown: convert it to 8 or 16 bits")
    if image.mode.startswith("I;16"):
        return (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
    if image.mode == "P":
        image = image.convert("RGBA")  # otherwise Pillow warns of transparent palettes
    mode = "L" if image.mode in GREY else "RGB"
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _line(error: object) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
