"""Samples that lie on the GPU, are sent to it, or are decoded on the way: the same batches bit for bit."""

import pytest
import torch
from helpers.cases import QUICK
from helpers.samples import image_folder
from lightning import Trainer

from normlab import compose, run
from normlab.data.common.sent import Sent
from normlab.data.fake import Fake
from normlab.data.image_folder import ImageFolder

pytestmark = pytest.mark.gpu

CHANGES = {"crop": 2, "flip": True, "cutout": 3, "batch_size": 16}


def batches(data, epoch: int = 1) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Those of all three splits, on the GPU."""
    data.trainer = Trainer(accelerator="gpu", devices=1, logger=False, enable_checkpointing=False)
    data.setup()
    train = data.train_dataloader()
    train.sampler.set_epoch(epoch)
    return [*train, *data.val_dataloader(), *data.test_dataloader()]


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for pair, other in zip(ours, theirs, strict=True):
        for a, b in zip(pair, other, strict=True):
            assert a.device.type == b.device.type == "cuda"
            assert torch.equal(a, b)


@pytest.mark.parametrize("mix", [None, "mixup", "cutmix"])
def test_where_samples_lie_changes_nothing(mix):
    there = Fake(size=8, channels=3, samples=200, mix=mix, on_device=True, **CHANGES)
    sent = Fake(size=8, channels=3, samples=200, mix=mix, on_device=False, **CHANGES)
    assert_same(batches(there), batches(sent))
    assert {x.device.type for x, _ in there.splits.values()} == {"cuda"}
    assert {x.device.type for x, _ in sent.splits.values()} == {"cpu"}
    assert isinstance(sent.train_dataloader().x, Sent)


def test_a_budget_of_all_splits(monkeypatch):
    data = Fake(size=8, channels=3, samples=200)
    data.setup()
    train, val, test = (data.splits[name][0].nbytes for name in ("train", "val", "test"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * (train + test), 10**12))
    batches(data)
    placed = {name: x.device.type for name, (x, _) in data.splits.items()}
    assert placed == {"train": "cuda", "val": "cuda", "test": "cuda" if val == 0 else "cpu"}


def test_streamed_images_are_those_in_memory(tmp_path):
    root = str(image_folder(tmp_path, images=40))
    there, streamed = (ImageFolder(root, in_memory=kept, mix="cutmix", **CHANGES) for kept in (True, False))
    assert_same(batches(there), batches(streamed))


@pytest.mark.parametrize("choice", ["true", "false", "auto"])
@pytest.mark.parametrize("steps", [1, 4])
def test_trains(tmp_path, choice, steps):
    settings = [*QUICK, "trainer=gpu", "trainer.max_epochs=2", "model=my_model", f"data.on_device={choice}"]
    assert run(compose([*settings, f"steps_per_execution={steps}"]), tmp_path).score is not None
