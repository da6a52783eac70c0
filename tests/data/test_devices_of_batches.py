"""Where samples lie: on the GPU as far as a budget reaches, else sent to it; and nothing that waits for the host."""

import random
import threading

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from normlab.data.common.base import GPU_SHARE
from normlab.data.common.batches import Batches, EpochOrder
from normlab.data.common.sent import AHEAD, Sent
from normlab.data.digits import Shift
from normlab.data.fake import Fake
from normlab.data.images.augment import Crop, Cutmix, Cutout, Flip, Mixup
from normlab.data.images.base import Standardise
from normlab.errors import ConfigError

CPU = torch.device("cpu")


@pytest.mark.parametrize("seed", range(50))
def test_all_splits_together_keep_to_one_budget(seed, monkeypatch):
    """Free memory shrinks by what is moved, so that one who asked again would give a later split a part of the rest."""
    draw, free, taken = random.Random(seed), 10_000, 0
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free - taken, 20_000))
    data = Fake(size=8, channels=3, samples=10)
    for size in [draw.randint(1, free // 2) for _ in range(3)]:
        fits = taken + size <= free // GPU_SHARE
        assert data._has_room(size, CPU) == fits
        taken += size if fits else 0


@pytest.mark.parametrize("choice", [True, False])
def test_the_key_overrules_the_budget(choice, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: pytest.fail("asked"))
    assert Fake(size=8, channels=3, samples=10, on_device=choice)._has_room(10**15 if choice else 1, CPU) is choice


def test_streamed_samples_cannot_lie_on_the_device(tmp_path):
    from helpers.samples import image_folder

    from normlab.data.image_folder import ImageFolder

    data = ImageFolder(str(image_folder(tmp_path)), in_memory=False, on_device=True)
    with pytest.raises(ConfigError, match=r"data.on_device=true: .*set data.in_memory=true too"):
        data.setup()


@pytest.mark.parametrize("seed", range(30))
def test_batches_that_are_sent_are_those_of_the_tensor(seed):
    draw = random.Random(seed)
    samples, processes = draw.randint(1, 60), draw.randint(1, 3)
    x, y = torch.randn(samples, 3, 4, 5), torch.arange(samples) % 4
    options = {"batch_size": draw.randint(1, 9), "drop_last": draw.random() < 0.5, "processes": processes}
    options["rank"] = draw.randrange(processes)
    if draw.random() < 0.7:
        options |= {"sampler": EpochOrder(samples, seed), "augment": Flip(samples, seed)}
        options["mix"] = draw.choice([None, Mixup(samples, 4, 1.0, seed)])
    here, sent = Batches(x, y, **options), Batches(Sent(x, CPU), y, **options)
    for _ in range(2):
        found, expected = list(sent), list(here)
        assert len(found) == len(expected) == len(here)
        for ours, theirs in zip(found, expected, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


class Counting(Sent):
    """Counts the batches that were cut."""

    cut = 0

    def _send(self, step):
        self.cut += 1
        return super()._send(step)


def test_a_few_batches_are_ahead_and_an_epoch_may_be_left():
    before, sent = threading.active_count(), Counting(torch.arange(100), CPU)
    steps = torch.arange(100).split(5)
    for number, batch in enumerate(sent.batches(steps)):
        assert torch.equal(batch, steps[number])
        assert sent.cut <= number + 1 + AHEAD
        if number == 3:
            break
    assert sent.cut <= 4 + AHEAD
    assert threading.active_count() == before


def test_an_error_of_the_thread_is_raised():
    with pytest.raises(IndexError):
        list(Sent(torch.arange(5), CPU).batches([torch.tensor([0]), torch.tensor([9])]))


class FromHost(TorchDispatchMode):
    """Notes every operation that a tensor of the host has a part in, or that makes one of Python's numbers."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        made = func is torch.ops.aten.lift_fresh.default
        if made or any(tensor.device.type == "cpu" for tensor in tensors):
            self.found.append(str(func))
        return result


SAMPLES, SHAPE = 40, (10, 12)
CHANGES = {
    "crop": Crop(SAMPLES, 2, seed=0),
    "reflecting crop": Crop(SAMPLES, 2, seed=0, reflect=True),
    "flip": Flip(SAMPLES, seed=0),
    "alternating flip": Flip(SAMPLES, seed=0, alternating=True),
    "cutout": Cutout(SAMPLES, 5, SHAPE, torch.tensor([3.0, 200.0, 77.0]), seed=0),
    "shift": Shift(SAMPLES, 2, seed=0),
    "standardise": lambda x, index, epoch: standardise(x),
    "mixup": lambda x, index, epoch: mixup(x.float(), index % 3, index, epoch),
    "cutmix": lambda x, index, epoch: cutmix(x.float(), index % 3, index, epoch),
}
standardise = Standardise((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
mixup, cutmix = Mixup(SAMPLES, 3, 1.0, seed=0), Cutmix(SAMPLES, 3, 1.0, SHAPE, seed=0)


@pytest.mark.parametrize("change", CHANGES)
def test_changes_copy_nothing_from_the_host_after_an_epochs_first_batch(change):
    """The device `meta` stands for a GPU."""
    x = torch.zeros(7, 3, *SHAPE, dtype=torch.uint8, device="meta")
    index = torch.zeros(7, dtype=torch.long, device="meta")
    CHANGES[change](x, index, 1)
    with FromHost() as host:
        CHANGES[change](x, index, 1)
    assert host.found == []
