"""Jobs of one process: what they share, and that they leave nothing behind."""

import gc
import weakref

import pytest
import torch

from normlab import compose, run
from normlab.data.common import job_cache as shared
from normlab.data.fake import Fake
from normlab.data.wine import Wine
from normlab.runner.run import run_job

WINE = ["model=net", "data=wine", "logger=none", "trainer.max_epochs=2"]
CHANGED = ["data.label_noise=0.2", "data.mix=mixup", "data.crop=1", "data.flip=true", "data.cutout=2"]
IMAGES = ["data=fake", "data.samples=200", "data.size=8", *CHANGED, "model=custom_model", *WINE[2:]]


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(shared, "_kept", {})


@pytest.fixture
def loads(monkeypatch):
    """Counts how often a data set is loaded."""
    counted = []
    for kind in (Wine, Fake):
        original = kind.load
        monkeypatch.setattr(kind, "load", lambda self, original=original: counted.append(self) or original(self))
    return counted


def job(tmp_path, *overrides):
    """A job of a sweep."""
    return run_job(compose(list(overrides)), tmp_path / str(len(list(tmp_path.iterdir()))))


@pytest.mark.parametrize("overrides", [WINE, pytest.param(IMAGES, marks=pytest.mark.slow)], ids=["table", "images"])
def test_jobs_share_the_data_and_train_as_if_they_did_not(overrides, loads, tmp_path):
    jobs = [["seed=1"], ["seed=2", "norm=group"], ["seed=1", "data.batch_size=32"]]
    together = [job(tmp_path, *overrides, *own) for own in jobs]
    assert len(loads) == 1
    for result, own in zip(together, jobs, strict=True):
        alone = run(compose([*overrides, *own]), folder=tmp_path / f"alone{own}")
        assert alone.metrics == result.metrics
        for one, two in zip(alone.task.parameters(), result.task.parameters(), strict=True):
            assert torch.equal(one, two)
    assert len(loads) == 4  # a run that is no job of a sweep reads what is there now


def test_no_job_changes_what_it_shares(tmp_path):
    job(tmp_path, *IMAGES)
    (kept,) = shared._kept.values()
    before = {name: (x.clone(), y.clone()) for name, (x, y) in kept["splits"].items()}
    job(tmp_path, *IMAGES, "seed=1", "trainer.overfit_batches=2")
    (kept,) = shared._kept.values()
    assert before.keys() == kept["splits"].keys() == {"train", "val", "test"}
    for name, (x, y) in kept["splits"].items():
        assert torch.equal(x, before[name][0])
        assert torch.equal(y, before[name][1])


OTHERS = [[], ["data.split_seed=1"], ["data.folds=3"], ["data.folds=3", "data.fold=1"]]


def test_data_sets_that_fit_are_kept_side_by_side(loads, tmp_path):
    for other in OTHERS * 2:
        job(tmp_path, *WINE, *other)
    assert len(loads) == len(shared._kept) == 4


def test_where_there_is_no_room_the_set_that_was_not_used_for_longest_goes(loads, monkeypatch, tmp_path):
    job(tmp_path, *WINE)
    (kept,) = shared._kept.values()
    size = sum(tensor.untyped_storage().nbytes() for pair in kept["splits"].values() for tensor in pair)
    first = weakref.ref(kept["splits"]["train"][0])
    del kept
    monkeypatch.setattr(shared, "ROOM", 2.5 * size)
    for other in (OTHERS[1], OTHERS[0], OTHERS[2]):
        job(tmp_path, *WINE, *other)
    loads.clear()
    job(tmp_path, *WINE)
    assert not loads
    job(tmp_path, *WINE, *OTHERS[1])
    assert len(loads) == 1
    for other in OTHERS[2:]:
        job(tmp_path, *WINE, *other)
    assert len(shared._kept) == 2
    loads.clear()
    gc.collect()
    assert first() is None


def test_a_set_larger_than_the_room_is_kept_alone(loads, monkeypatch, tmp_path):
    monkeypatch.setattr(shared, "ROOM", 1)
    for other in (OTHERS[0], OTHERS[0], OTHERS[1]):
        job(tmp_path, *WINE, *other)
    assert len(loads) == 2
    assert len(shared._kept) == 1


def test_a_job_is_gone_when_the_next_has_run(tmp_path):
    """Its network, optimizer and trainer: a sweep of many jobs does not grow."""
    built = []

    for seed in range(3):
        task = job(tmp_path, *WINE, "logger=tensorboard", f"seed={seed}").task
        built.append((weakref.ref(task.network), weakref.ref(task.trainer)))
        del task
    gc.collect()
    assert len(built) == 3
    assert [(network(), trainer()) for network, trainer in built[:2]] == [(None, None)] * 2


@pytest.mark.slow
def test_jobs_share_compiled_code_and_all_of_them_are_compiled(tmp_path):
    """torch by itself keeps eight versions of a function; three norms need nine, and the third would not be."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    graphs = []
    for own in (["seed=1"], ["seed=2"], ["norm=group"], ["norm=layer"], ["norm=rms"], ["norm=batch", "seed=3"]):
        job(tmp_path, *WINE, "compile=true", *own)
        graphs.append(counters["stats"]["unique_graphs"])
    new = [after - before for before, after in zip([0, *graphs], graphs, strict=False)]
    assert new[1] == new[5] == 0
    assert all(count > 0 for count in (new[0], *new[2:5]))
    assert sum(new) > 8
