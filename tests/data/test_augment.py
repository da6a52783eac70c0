"""Random changes of whole batches against the same change made to each image on its own."""

import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as TF

from normlab.data.images.augment import Crop, Cutmix, Cutout, Flip, Mixup, chain
from normlab.errors import ConfigError

SAMPLES = 40
INDEX = torch.tensor([7, 0, 39, 12, 5, 21, 30])
KINDS = [torch.uint8, torch.float32]


def images(dtype=torch.uint8, channels=3):
    pixels = torch.randint(256, (len(INDEX), channels, 10, 12), generator=torch.Generator().manual_seed(0))
    return pixels.to(dtype)


def changes():
    value = torch.tensor([3.0, 200.0, 77.0])
    return {
        "crop": Crop(SAMPLES, 2, seed=0),
        "reflecting crop": Crop(SAMPLES, 2, seed=0, reflect=True),
        "flip": Flip(SAMPLES, seed=0),
        "alternating flip": Flip(SAMPLES, seed=0, alternating=True),
        "cutout": Cutout(SAMPLES, 5, (10, 12), value, seed=0),
    }


@pytest.mark.parametrize("dtype", KINDS)
def test_crop_is_torchvisions_of_each_image(dtype):
    crop, x = Crop(SAMPLES, 3, seed=1), images(dtype)
    found = crop(x, INDEX, epoch=2)
    for place, sample in enumerate(INDEX.tolist()):
        top, left = crop.corners(torch.tensor(sample), 2).tolist()
        padded = TF.pad(x[place], [3, 3, 3, 3])
        assert torch.equal(found[place], TF.crop(padded, top, left, 10, 12))
    corners = Crop(9000, 1, seed=0).corners(torch.arange(9000), 0)
    counts = torch.bincount(3 * corners[:, 0] + corners[:, 1], minlength=9)
    assert ((counts - 1000).abs() < 150).all()  # five deviations


@pytest.mark.parametrize("dtype", KINDS)
def test_reflected_edges_are_torchvisions(dtype):
    crop, x = Crop(SAMPLES, 4, seed=1, reflect=True), images(dtype)
    found = crop(x, INDEX, epoch=2)
    for place, sample in enumerate(INDEX.tolist()):
        top, left = crop.corners(torch.tensor(sample), 2).tolist()
        padded = TF.pad(x[place].float(), [4, 4, 4, 4], padding_mode="reflect")
        assert torch.equal(found[place].float(), TF.crop(padded, top, left, 10, 12))
    assert torch.equal(Crop(SAMPLES, 9, seed=1, reflect=True)(x, INDEX, 0).amax(), x.amax())


def test_edges_that_cannot_be_mirrored_are_refused(quick_run):
    with pytest.raises(ConfigError, match=r"data.crop=8 with data.crop_edges=reflect: images of 8×8 pixels"):
        quick_run("data=fake", "data.size=8", "data.crop=8", "data.crop_edges=reflect", "model=my_model")
    assert quick_run("data=fake", "data.size=8", "data.crop=7", "data.crop_edges=reflect", "model=my_model").score


@pytest.mark.parametrize("dtype", KINDS)
def test_flip_is_torchvisions_of_every_other_image(dtype):
    flip, x = Flip(SAMPLES, seed=1), images(dtype)
    found = flip(x, INDEX, epoch=2)
    flipped = flip.flipped(INDEX, 2)
    assert 0 < flipped.sum() < len(INDEX)
    for place in range(len(INDEX)):
        expected = TF.horizontal_flip(x[place]) if flipped[place] else x[place]
        assert torch.equal(found[place], expected)
    assert abs(Flip(10_000, seed=0).flipped(torch.arange(10_000), 0).sum() - 5000) < 250


def test_an_alternating_flip_shows_the_other_side_in_each_epoch():
    """Jordan 2024: "in the first epoch at random, … then the images that were not flipped before, and so on"."""
    flip, every = Flip(1000, seed=3, alternating=True), torch.arange(1000)
    first = flip.flipped(every, 0)
    assert abs(first.sum() - 500) < 80  # five deviations
    for epoch in range(1, 6):
        assert torch.equal(flip.flipped(every, epoch), first if epoch % 2 == 0 else ~first)
    x = images()
    assert torch.equal(flip(x, INDEX, 4).flip(-1), flip(x, INDEX, 5))
    assert not torch.equal(first, Flip(1000, seed=4, alternating=True).flipped(every, 0))


@pytest.mark.parametrize("size", [4, 5, 30])
def test_cutout_is_torchvisions_erase_of_each_image(size):
    value = torch.tensor([3, 200, 77])
    cutout, x = Cutout(SAMPLES, size, (10, 12), value, seed=1), images()
    found = cutout(x, INDEX, epoch=2)
    for place, sample in enumerate(INDEX.tolist()):
        row, column = cutout.centres(torch.tensor(sample), 2).tolist()
        top, left = max(0, row - size // 2), max(0, column - size // 2)
        bottom, right = min(10, row - size // 2 + size), min(12, column - size // 2 + size)
        expected = TF.erase(x[place], top, left, bottom - top, right - left, value[:, None, None].to(torch.uint8))
        assert torch.equal(found[place], expected)
    centres = cutout.centres(torch.arange(SAMPLES), 0)
    assert (centres >= 0).all()
    assert centres.amax(0).tolist() <= [9, 11]


@pytest.mark.parametrize("name", changes())
def test_a_change_depends_on_seed_epoch_and_sample_alone(name):
    x, one, other = images(), changes()[name], changes()[name]
    expected = one(x, INDEX, 3)
    other(x, INDEX, 1)  # another history
    order = torch.tensor([4, 2, 6, 0, 5, 1, 3])
    assert torch.equal(other(x[order], INDEX[order], 3), expected[order])
    assert torch.equal(other(x[2:3], INDEX[2:3], 3), expected[2:3])
    assert not torch.equal(one(x, INDEX, 4), expected)
    assert torch.equal(x, images())  # nothing in place


def test_chain_makes_one_change_after_the_other():
    crop, flip = changes()["crop"], changes()["flip"]
    x = images()
    assert torch.equal(chain([crop, flip])(x, INDEX, 0), flip(crop(x, INDEX, 0), INDEX, 0))
    assert chain([]) is None


def partner(place):
    return min(place ^ 1, len(INDEX) - 1)


LABELS = torch.tensor([0, 2, 1, 1, 2, 0, 1])


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_is_the_papers_formula_of_each_pair(alpha):
    mixup, x = Mixup(SAMPLES, 3, alpha, seed=0), images().double()
    found, labels = mixup(x, LABELS, INDEX, epoch=1)
    for place, sample in enumerate(INDEX.tolist()):
        share = mixup.shares(torch.tensor(sample), 1).double()
        expected = share * x[place] + (1 - share) * x[partner(place)]
        torch.testing.assert_close(found[place], expected, rtol=0, atol=1e-10)
        one_hot = F.one_hot(LABELS, 3).float()
        torch.testing.assert_close(
            labels[place], share.float() * one_hot[place] + (1 - share.float()) * one_hot[partner(place)]
        )
    assert torch.equal(found[-1], x[-1])  # which has no partner
    assert labels.dtype == torch.float32
    shares = Mixup(20_000, 3, alpha, seed=0).shares(torch.arange(20_000), 0)
    variance = 1 / (4 * (2 * alpha + 1))  # of Beta(α, α)
    assert abs(shares.mean() - 0.5) < 0.02
    assert abs(shares.var() - variance) < 0.05 * variance


def test_cutmix_has_torchvisions_boxes_and_labels_by_area():
    cutmix, x = Cutmix(SAMPLES, 3, 1.0, (10, 12), seed=0), images(torch.float32)
    found, labels = cutmix(x, LABELS, INDEX, epoch=1)
    one_hot = F.one_hot(LABELS, 3).float()
    for place, sample in enumerate(INDEX.tolist()):
        share = cutmix.shares(torch.tensor(sample), 1).item()
        row, column = cutmix.centres(torch.tensor(sample), 1).tolist()
        half = 0.5 * (1 - share) ** 0.5  # as torchvision.transforms.v2.CutMix has it
        half_width, half_height = int(half * 12), int(half * 10)
        left, right = max(column - half_width, 0), min(column + half_width, 12)
        top, bottom = max(row - half_height, 0), min(row + half_height, 10)
        expected = x[place].clone()
        expected[:, top:bottom, left:right] = x[partner(place)][:, top:bottom, left:right]
        assert torch.equal(found[place], expected)
        kept = 1 - (right - left) * (bottom - top) / 120
        torch.testing.assert_close(labels[place], kept * one_hot[place] + (1 - kept) * one_hot[partner(place)])
    assert (found[:6] != x[:6]).any()


def mixes():
    return [Mixup(SAMPLES, 3, 1.0, seed=0), Cutmix(SAMPLES, 3, 1.0, (10, 12), seed=0)]


@pytest.mark.parametrize("mix", mixes(), ids=["mixup", "cutmix"])
def test_mixing_depends_on_seed_epoch_and_pair_alone(mix):
    x = images(torch.float32)
    found, labels = mix(x, LABELS, INDEX, 1)
    mix(x, LABELS, INDEX, 5)
    again, same_labels = mix(x[2:4], LABELS[2:4], INDEX[2:4], 1)
    assert torch.equal(again, found[2:4])
    assert torch.equal(same_labels, labels[2:4])
    assert not torch.equal(mix(x, LABELS, INDEX, 2)[0], found)


@pytest.mark.gpu
@pytest.mark.parametrize("index_device", ["cpu", "cuda"])
def test_changes_are_the_same_on_a_gpu(index_device):
    index, x = INDEX.to(index_device), images().cuda()
    for name, change in changes().items():
        assert torch.equal(change(x, index, 1).cpu(), changes()[name](images(), INDEX, 1))
    for mix, same in zip(mixes(), mixes(), strict=True):
        found = mix(x.float(), LABELS.to(index_device), index, 1)
        for ours, theirs in zip(found, same(images().float(), LABELS, INDEX, 1), strict=True):
            torch.testing.assert_close(ours.cpu(), theirs)
