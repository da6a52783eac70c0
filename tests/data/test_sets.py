"""Splits, preprocessing, order and augmentation."""

import pytest
import torch
from helpers.cases import bundled
from hydra.utils import instantiate
from sklearn import datasets
from torch.utils.data import DataLoader, TensorDataset

from normlab.config.compose import compose
from normlab.data.common.base import DataModule
from normlab.data.common.batches import Batches, EpochOrder
from normlab.data.common.loaders import Chunks, Fixed
from normlab.data.common.splits import Splitter, with_noise
from normlab.data.digits import Digits, Shift
from normlab.errors import ConfigError


def data_of(option: str, **changes):
    data = instantiate(compose([f"data={option}"]).data, **changes)
    data.setup()
    return data


def places(data):
    """Where the samples of each part stand in what was loaded."""
    _, y = data.load()["train"]
    classes = [str(c) for c in range(data.out_features)] if data.task == "classify" else []
    return Splitter(data.val_fraction, data.test_fraction, data.split_seed, None, 0, classes).split(y)


@pytest.mark.parametrize("option", bundled())
def test_facts_known_before_loading_are_those_of_the_data(option):
    facts = instantiate(compose([f"data={option}"]).data)
    data = data_of(option)
    for x, y in data.splits.values():
        assert x.dtype == torch.float32
        assert tuple(x.shape[1:]) == facts.input_shape
        if facts.task == "classify":
            assert set(y.tolist()) == set(range(facts.out_features))
        else:
            assert tuple(y.shape[1:]) == (facts.out_features,)


@pytest.mark.parametrize("option", bundled())
def test_splits_are_whole_disjoint_repeatable_and_change_with_split_seed(option):
    data = data_of(option)
    everything, _ = data.load()["train"]
    indices = torch.cat(list(places(data).values()))
    assert sorted(indices.tolist()) == list(range(len(everything)))
    again, other = data_of(option), data_of(option, split_seed=1)
    assert torch.equal(again.splits["test"][0], data.splits["test"][0])
    assert not torch.equal(other.splits["test"][1], data.splits["test"][1])


@pytest.mark.parametrize("option", [o for o in bundled() if o != "diabetes"])
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
    parts = places(data)
    expected = (raw - raw[parts["train"]].mean(0)) / raw[parts["train"]].std(0, correction=0)
    torch.testing.assert_close(data.splits["val"][0], expected[parts["val"]], rtol=1e-4, atol=1e-5)


def test_digits_have_size_and_channels_of_their_keys():
    for size, channels in ((8, 1), (32, 3)):
        data = data_of("digits", size=size, channels=channels)
        assert tuple(data.splits["train"][0].shape[1:]) == (channels, size, size) == data.input_shape


def test_digits_at_their_own_size_are_sklearns():
    images, labels = Digits(size=8, channels=1).load()["train"]
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
        down, right = shift.shifts(torch.tensor(sample), epoch=1).tolist()
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


def add_neighbour(x, y, index, epoch):
    """Adds to each sample the other of its pair; the last of an odd number stays alone."""
    other = (torch.arange(len(y)) ^ 1).clamp(max=len(y) - 1)
    return x + x[other], y + y[other]


@pytest.mark.parametrize("processes", [2, 3, 5])
@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("samples", [48, 53, 62])
def test_processes_share_the_batches_of_one(samples, drop_last, processes):
    """Step k of N processes with batch b has the samples of step k of one with N·b, in contiguous blocks."""
    x, y = torch.randn(samples, 1, 8, 8), torch.arange(samples)
    order = EpochOrder(samples, seed=1)
    changes = {"augment": Shift(samples, 2, seed=0), "mix": add_neighbour}
    one = Batches(x, y, 4 * processes, order, drop_last, **changes)
    ranks = [Batches(x, y, 4, order, drop_last, rank=r, processes=processes, **changes) for r in range(processes)]
    assert {len(loader) for loader in ranks} == {len(one)}
    for step, (whole, *parts) in enumerate(zip(one, *ranks, strict=True)):
        assert torch.equal(torch.cat([part[0] for part in parts]), whole[0])
        assert torch.equal(torch.cat([part[1] for part in parts]), whole[1])
        sizes = [len(part[1]) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        losses = [y.double().mean().nan_to_num() * ranks[r].weight(step) for r, (_, y) in enumerate(parts)]
        torch.testing.assert_close(sum(losses) / processes, whole[1].double().mean())


def test_mixing_pairs_neighbours_of_the_epochs_order():
    y = torch.arange(53)
    order = EpochOrder(53, seed=1)
    found = torch.cat([y for _, y in Batches(torch.zeros(53, 1), y, 8, order, mix=add_neighbour)])
    shuffled = order.permutation()
    pairs = shuffled[:52].view(26, 2).sum(1).repeat_interleave(2)
    assert torch.equal(found, torch.cat([pairs, 2 * shuffled[52:]]))


def test_transform_is_for_every_part_and_augmentation_for_training(monkeypatch):
    monkeypatch.setattr(Digits, "transform", lambda self: lambda x: x * 0 + 7)
    monkeypatch.setattr(Digits, "augmentation", lambda self: lambda x, index, epoch: pytest.fail("augmented"))
    data = data_of("digits", size=8)
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert all((x == 7).all() for x, _ in loader)
    with pytest.raises(pytest.fail.Exception, match="augmented"):
        next(iter(data.train_dataloader()))


class Numbered(DataModule):
    """A hundred samples of two classes; each is its own place."""

    task, input_shape, out_features = "classify", (1,), 2

    def load(self):
        return {"train": (torch.arange(100)[:, None], torch.arange(100) % 2)}


def test_folds_are_disjoint_stratified_and_cover_what_is_not_test():
    folds = [Numbered(folds=5, fold=fold) for fold in range(5)]
    for data in folds:
        data.setup()
        assert [len(data.splits[part][1]) for part in ("train", "val", "test")] == [64, 16, 20]
        assert sorted(torch.cat([x for x, _ in data.splits.values()]).flatten().tolist()) == list(range(100))
        assert torch.bincount(data.splits["val"][1]).tolist() == [8, 8]
        assert torch.equal(data.splits["test"][0], folds[0].splits["test"][0])
    val = torch.cat([data.splits["val"][0] for data in folds]).flatten().tolist()
    assert len(set(val)) == 80


@pytest.mark.parametrize(("amount", "size"), [(0.5, 48), (30, 30), (1, 97), (97, 97)])
def test_subset_takes_part_of_the_training_part_alone_stratified(amount, size):
    whole, part = data_of("iris"), data_of("iris", subset=amount)
    for name in ("val", "test"):
        assert torch.equal(part.splits[name][1], whole.splits[name][1])
    counts = torch.bincount(part.splits["train"][1])
    assert counts.sum() == size
    assert counts.max() - counts.min() <= 1


def test_label_noise_moves_the_told_share_of_training_labels_to_other_classes():
    clean, noisy = data_of("digits"), data_of("digits", label_noise=0.4)
    for name in ("val", "test"):
        assert torch.equal(noisy.splits[name][1], clean.splits[name][1])
    before, after = clean.splits["train"][1], noisy.splits["train"][1]
    assert (before != after).sum() == round(0.4 * len(before))
    assert set(after.tolist()) == set(range(10))
    moved = with_noise(torch.zeros(90_000, dtype=torch.long), 1.0, 10, seed=3)
    shares = torch.bincount(moved, minlength=10)
    assert shares[0] == 0
    assert ((shares[1:] - 10_000).abs() < 500).all()  # five deviations


@pytest.mark.parametrize(
    ("option", "changes", "message"),
    [
        ("iris", {"test_fraction": 0.01}, "data.test_fraction=0.01: 150 samples cannot be cut so that both parts have"),
        ("iris", {"val_fraction": 0.79}, "data.val_fraction=0.79: 120 samples cannot be cut .* of each of 3 classes"),
        ("iris", {"folds": 41}, "data.folds=41: there are only 40 samples of a class"),
        ("iris", {"subset": 98}, "data.subset=98: the training part has 97 samples"),
        ("iris", {"subset": 2}, "data.subset=2 takes 2 samples of 3 classes"),
        ("diabetes", {"label_noise": 0.1}, "data.label_noise=0.1: this data has no classes"),
    ],
)
def test_what_cannot_be_split_is_refused(option, changes, message):
    with pytest.raises(ConfigError, match=message):
        data_of(option, **changes)


def test_a_class_of_one_sample_is_named():
    with pytest.raises(ConfigError, match=r"fewer than two samples to split: cat \(1\), emu \(0\); add samples"):
        Splitter(0.2, 0.2, 0, None, 0, ["ant", "cat", "emu"]).split(torch.tensor([0, 1] + 20 * [0]))


def test_parts_that_are_given_are_not_cut():
    y = torch.arange(100) % 2
    splitter = Splitter(0.2, 0.1, 0, None, 0, ["a", "b"])
    assert {name: len(part) for name, part in splitter.split(y, ["test"]).items()} == {"train": 80, "val": 20}
    assert {name: len(part) for name, part in splitter.split(y, ["val"]).items()} == {"train": 90, "test": 10}
    with pytest.raises(ConfigError, match="data.folds=4: this data has a validation part of its own"):
        Splitter(0.2, 0.1, 0, 4, 0, ["a", "b"]).split(y, ["val"])
