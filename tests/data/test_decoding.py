"""Files of every kind into pixels, against Pillow and torchvision."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from normlab.data.images.decoding import ImageError, read, shaped

RANDOM = np.random.default_rng(0)
COLOUR = Image.fromarray(RANDOM.integers(0, 256, (9, 14, 3), dtype=np.uint8))
GREY = COLOUR.convert("L")
SMOOTH = COLOUR.resize((40, 30))  # JPEG keeps it


def pixels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.atleast_3d(np.array(image)).transpose(2, 0, 1).copy())


def written(folder, image, name, **options):
    image.save(folder / name, **options)
    return str(folder / name)


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "webp", "tiff", "ppm"])
def test_lossless_formats_give_the_pixels_that_were_saved(suffix, tmp_path):
    image = COLOUR.convert("P") if suffix == "gif" else COLOUR
    file = written(tmp_path, image, f"x.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    assert torch.equal(read(file), pixels(image.convert("RGB")))


@pytest.mark.parametrize("image", [COLOUR, GREY, SMOOTH], ids=["colour", "grey", "smooth"])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True, "quality": 95}])
def test_jpeg_is_decoded_as_pillow_does(image, options, tmp_path):
    file = written(tmp_path, image, "x.jpg", **options)
    assert torch.equal(read(file), pixels(Image.open(file)))


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "png"), ("1", "png"), ("LA", "png"), ("RGBA", "png"), ("P", "png"), ("P", "bmp"), ("1", "tiff"),
     ("LA", "tiff"), ("RGBA", "tiff"), ("RGBA", "webp")],
)  # fmt: skip
def test_grey_stays_grey_palettes_are_looked_up_and_transparency_is_dropped(mode, suffix, tmp_path):
    image = COLOUR.convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(RANDOM.integers(1, 256, (9, 14), dtype=np.uint8)))
    file = written(tmp_path, image, f"x.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    expected = image.convert("L" if mode in ("L", "1", "LA") else "RGB")
    assert torch.equal(read(file), pixels(expected))


def test_a_palette_with_transparency(tmp_path):
    image = COLOUR.convert("P")
    file = written(tmp_path, image, "x.png", transparency=bytes(range(256)))
    assert torch.equal(read(file), pixels(image.convert("RGB")))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_of_16_bits_the_upper_eight_are_kept(suffix, tmp_path):
    values = RANDOM.integers(0, 65536, (9, 14), dtype=np.uint16)
    file = written(tmp_path, Image.fromarray(values), f"x.{suffix}")
    assert torch.equal(read(file)[0], torch.from_numpy((values // 256).astype(np.uint8)))


@pytest.mark.parametrize("suffix", ["jpg", "tiff"])
def test_cmyk_becomes_rgb(suffix, tmp_path):
    file = written(tmp_path, SMOOTH.convert("CMYK"), f"x.{suffix}")
    assert torch.equal(read(file), pixels(Image.open(file).convert("RGB")))
    assert (read(file).float() - pixels(SMOOTH).float()).abs().mean() < 20


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_upright_as_exif_says(orientation, suffix, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = written(tmp_path, SMOOTH, f"x.{suffix}", exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    turn = {  # what a viewer does, from the standard's table
        1: lambda x: x,
        2: lambda x: x.flip(2),
        3: lambda x: x.flip(1, 2),
        4: lambda x: x.flip(1),
        5: lambda x: x.transpose(1, 2),
        6: lambda x: x.rot90(-1, (1, 2)),
        7: lambda x: x.transpose(1, 2).flip(1, 2),
        8: lambda x: x.rot90(1, (1, 2)),
    }
    plain = read(written(tmp_path, SMOOTH, f"plain.{suffix}", **({"lossless": True} if suffix == "webp" else {})))
    assert torch.equal(read(file), turn[orientation](plain))


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    first = GREY.convert("P")
    first.save(tmp_path / "x.gif", save_all=True, append_images=[GREY.transpose(0).convert("P")])
    assert torch.equal(read(str(tmp_path / "x.gif"))[:1], pixels(GREY))


def damaged(suffix: str) -> bytes:
    content = io.BytesIO()
    SMOOTH.resize((200, 200)).save(content, suffix)
    return content.getvalue()[: content.tell() // 2]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"a,b\n1,2\n", "no image"),
        (b"\xff\xd8\xff\xe0", "."),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "."),
        (damaged("jpeg"), "."),
        (damaged("png"), "."),
        (damaged("webp"), "."),
        (damaged("bmp"), "."),
    ],
)
def test_what_is_no_image_says_why_in_one_line(content, reason, tmp_path):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=reason) as error:
        read(str(tmp_path / "x.jpg"))
    assert len(str(error.value).splitlines()) == 1


def test_files_that_cannot_be_opened(tmp_path):
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(ImageError, match="No such file"):
        read(str(tmp_path / "gone.jpg"))
    with pytest.raises(ImageError, match="Is a directory"):
        read(str(tmp_path / "folder.jpg"))


def test_pixels_of_unknown_range_are_refused(tmp_path):
    file = written(tmp_path, Image.fromarray(np.ones((4, 4), np.float32)), "x.tiff")
    with pytest.raises(ImageError, match="32 bits, whose range is unknown"):
        read(file)


@pytest.mark.parametrize("shape", [(9, 14), (14, 9), (6, 6), (5, 20), (7, 4)])
def test_the_shorter_side_is_resized_and_the_middle_kept(shape):
    x = torch.from_numpy(RANDOM.integers(0, 256, (4, 3, *shape), dtype=np.uint8))
    expected = TF.center_crop(TF.resize(x, [6], antialias=True), [6])
    assert torch.equal(shaped(x, 6, None), expected)
    assert torch.equal(torch.stack([shaped(image, 6, 3) for image in x]), expected)


def test_channels():
    x = pixels(COLOUR)
    assert torch.equal(shaped(x, None, 1), pixels(GREY))
    assert torch.equal(shaped(x[None], None, 1)[0], pixels(GREY))
    assert torch.equal(shaped(pixels(GREY), None, 3), pixels(GREY).repeat(3, 1, 1))
    assert shaped(x, None, None) is x
