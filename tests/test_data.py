"""Splits, preprocessing, order and augmentation."""

import pytest
import torch
from conftest import options
from hydra.utils import instantiate
from sklearn import datasets
from torch.utils.data import DataLoader, TensorDataset

from normlab.config import read_option
from normlab.data.base import Batches, EpochOrder
from normlab.data.digits import Digits, Shift
from normlab.data.loaders import Chunks, Fixed


def data_of(option: str, **changes):
    data = instantiate(read_option("data", option), **changes)
    data.setup()
    return data


@pytest.mark.parametrize("option", options("data"))
def test_facts_known_before_loading_are_those_of_the_data(option):
    facts = instantiate(read_option("data", option))
    data = data_of(option)
    for x, y in data.splits.values():
        assert x.dtype == torch.float32
        assert tuple(x.shape[1:]) == facts.input_shape
        if facts.task == "classify":
            assert set(y.tolist()) == set(range(facts.out_features))
        else:
            assert tuple(y.shape[1:]) == (facts.out_features,)


@pytest.mark.parametrize("option", options("data"))
def test_splits_are_whole_disjoint_repeatable_and_change_with_split_seed(option):
    data = data_of(option)
    everything, _ = data.load()
    parts = data._split(data.load()[1])
    indices = torch.cat(list(parts.values()))
    assert sorted(indices.tolist()) == list(range(len(everything)))
    again, other = data_of(option), data_of(option, split_seed=1)
    assert torch.equal(again.splits["test"][0], data.splits["test"][0])
    assert not torch.equal(other.splits["test"][1], data.splits["test"][1])


@pytest.mark.parametrize("option", [o for o in options("data") if o != "diabetes"])
def test_splits_are_stratified(option):
    data = data_of(option)
    shares = [torch.bincount(y).double() / len(y) for _, y in data.splits.values()]
    for share in shares[1:]:
        torch.testing.assert_close(share, shares[0], rtol=0, atol=0.04)


@pytest.mark.parametrize("option", ["wine", "breast_cancer", "iris", "diabetes"])
def test_scaling_is_fitted_on_the_training_part_only(option):
    data = data_of(option)
    train = data.splits["train"][0]
    torch.testing.assert_close(train.mean(0), torch.zeros(train.shape[1]), rtol=0, atol=1e-5)
    torch.testing.assert_close(train.std(0, correction=0), torch.ones(train.shape[1]), rtol=1e-4, atol=0)
    assert data.splits["test"][0].mean(0).abs().max() > 1e-3
    raw = torch.tensor(getattr(datasets, f"load_{option}")().data, dtype=torch.float32)
    parts = data._split(data.load()[1])
    expected = (raw - raw[parts["train"]].mean(0)) / raw[parts["train"]].std(0, correction=0)
    torch.testing.assert_close(data.splits["val"][0], expected[parts["val"]], rtol=1e-4, atol=1e-5)


def test_digits_have_size_and_channels_of_their_keys():
    for size, channels in ((8, 1), (32, 3)):
        data = data_of("digits", size=size, channels=channels)
        assert tuple(data.splits["train"][0].shape[1:]) == (channels, size, size) == data.input_shape


def test_digits_at_their_own_size_are_sklearns():
    images, labels = Digits(size=8, channels=1).load()
    bunch = datasets.load_digits()
    torch.testing.assert_close(images[:, 0], torch.tensor(bunch.images / 16, dtype=torch.float32))
    assert labels.tolist() == bunch.target.tolist()


def test_order_depends_on_seed_and_epoch_alone():
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochOrder(50, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 3) == order(0, 3)
    assert sorted(order(0, 3)) == list(range(50))
    assert order(0, 3) != order(0, 4) != order(1, 4)


@pytest.mark.parametrize("drop_last", [True, False])
def test_batches_are_those_of_a_dataloader(drop_last):
    x, y = torch.randn(53, 4), torch.arange(53)
    order = EpochOrder(53, seed=1)
    ours = Batches(x, y, 8, order, drop_last)
    theirs = DataLoader(TensorDataset(x, y), 8, sampler=order, drop_last=drop_last)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])


def test_shift_moves_each_image_by_its_own_pixels():
    images = torch.arange(5 * 2 * 6 * 6, dtype=torch.float32).reshape(5, 2, 6, 6)
    shift = Shift(samples=9, most=2, seed=0)
    index = torch.tensor([8, 0, 3, 4, 7])
    moved = shift(images, index, epoch=1)
    for place, sample in enumerate(index.tolist()):
        down, right = shift.shifts[sample].tolist()
        padded = torch.nn.functional.pad(images[place][None], (2, 2, 2, 2), mode="replicate")[0]
        assert torch.equal(moved[place], padded[:, 2 - down : 8 - down, 2 - right : 8 - right])


def test_augmentation_depends_on_seed_epoch_and_sample_alone():
    images = torch.randn(6, 1, 8, 8)
    one, other = Shift(20, 2, seed=0), Shift(20, 2, seed=0)
    index = torch.tensor([4, 9, 2, 11, 0, 19])
    backwards = torch.arange(5, -1, -1)
    other(images, index, epoch=2)  # another history
    expected = one(images, index, epoch=7)
    torch.testing.assert_close(other(images[backwards], index[backwards], 7)[backwards], expected)
    assert not torch.equal(one(images, index, epoch=8), expected)


def test_chunks_hold_all_batches_and_a_short_rest():
    loader = Batches(torch.arange(100), torch.arange(100), 10)
    assert [len(list(chunk)) for chunk in Chunks(loader, 4)] == [4, 4, 2]
    assert [len(list(chunk)) for chunk in Chunks(loader, 4, limit=5)] == [4, 1]
    assert [len(list(chunk)) for chunk in Chunks(loader, 4, limit=0.3)] == [3]
    assert len(Chunks(loader, 4)) == 3


def test_fixed_repeats_the_first_batches():
    order = EpochOrder(40, seed=0)
    fixed = Fixed(Batches(torch.arange(40), torch.arange(40), 10, order), 2)
    first = [y.tolist() for _, y in fixed]
    order.set_epoch(5)
    assert [y.tolist() for _, y in fixed] == first
    assert len(fixed) == 2


@pytest.mark.parametrize("processes", [2, 3, 5])
@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("samples", [48, 53, 62])
def test_processes_share_the_batches_of_one(samples, drop_last, processes):
    """Step k of N processes with batch b has the samples of step k of one with N·b, in contiguous blocks."""
    x, y = torch.randn(samples, 1, 8, 8), torch.arange(samples)
    order = EpochOrder(samples, seed=1)
    augment = Shift(samples, 2, seed=0)
    one = Batches(x, y, 4 * processes, order, drop_last, augment)
    ranks = [Batches(x, y, 4, order, drop_last, augment, rank, processes) for rank in range(processes)]
    assert {len(loader) for loader in ranks} == {len(one)}
    for step, (whole, *parts) in enumerate(zip(one, *ranks, strict=True)):
        assert torch.equal(torch.cat([part[0] for part in parts]), whole[0])
        assert torch.equal(torch.cat([part[1] for part in parts]), whole[1])
        sizes = [len(part[1]) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        losses = [y.double().mean().nan_to_num() * ranks[r].weight(step) for r, (_, y) in enumerate(parts)]
        torch.testing.assert_close(sum(losses) / processes, whole[1].double().mean())
