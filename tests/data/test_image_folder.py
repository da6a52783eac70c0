"""Your own images: layouts, what is measured, in memory and streamed alike, and every kind of bad input."""

import builtins
import os
import re
import shutil
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.cases import rest_slow
from helpers.samples import image_folder, new_samples
from hydra.utils import instantiate
from PIL import Image
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter
from torchvision import datasets
from torchvision.transforms import PILToTensor

from normlab.config.compose import compose
from normlab.data.common.batches import Source
from normlab.data.images import gather, streamed
from normlab.data.images.streamed import Files
from normlab.errors import ConfigError

REAL = Path(os.environ.get("NORMLAB_DATA_DIR", "-"))


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """A cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "normlab"


@pytest.fixture
def folder(tmp_path):
    """Three classes of 20 images, 8 × 8."""
    return image_folder(tmp_path / "images", "abc")


def data_of(path, **changes):
    data = instantiate(compose(["data=image_folder", f"data.path={path}"]).data, **changes)
    data.setup()
    return data


def epoch(data, part="train", number=0):
    loader = getattr(data, f"{part}_dataloader")()
    if loader.sampler is not None:
        loader.sampler.set_epoch(number)
    return list(loader)


def pixels(file):
    return torch.from_numpy(np.array(Image.open(file)).transpose(2, 0, 1).copy())


MODES = [{"in_memory": True}, {"in_memory": False, "workers": 0}, {"in_memory": False, "workers": 2}]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_samples_labels_and_facts_are_those_of_the_files(mode, folder):
    data = data_of(folder, **mode, flip=False)
    assert (data.input_shape, data.out_features, data.class_names) == ((3, 8, 8), 3, ["a", "b", "c"])
    expected = {pixels(file).numpy().tobytes(): "abc".index(file.parent.name) for file in folder.rglob("*.png")}
    found = {}
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    for part in ("train", "val", "test"):
        for x, y in epoch(data, part):
            bytes_ = ((x * std + mean) * 255).round().to(torch.uint8)
            found |= {image.numpy().tobytes(): label for image, label in zip(bytes_, y.tolist(), strict=True)}
    assert found == expected
    assert sorted(len(y) for _, y in data.splits.values()) == [9, 12, 39]
    for _, y in data.splits.values():
        assert torch.bincount(y).max() - torch.bincount(y).min() <= 1


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_batches_are_standardised_by_the_training_part(mode, folder):
    data = data_of(folder, **mode, flip=False, batch_size=7)
    train = torch.cat([x for x, _ in epoch(data)]).double()
    torch.testing.assert_close(train.mean((0, 2, 3)), torch.zeros(3).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(train.std((0, 2, 3), correction=0), torch.ones(3).double(), rtol=0, atol=1e-6)


def several_or_cutmix(case):
    return len(case[0]) > 1 or "cutmix" in case[0].values()


@pytest.mark.parametrize(
    "changes",
    rest_slow(
        [{"size": 6, "crop": 2, "cutout": 3}, {"channels": 1}, {"mix": "mixup"}, {"mix": "cutmix"}], several_or_cutmix
    ),
)
def test_batches_are_the_same_bit_for_bit_in_memory_and_streamed(changes, folder):
    everywhere = [data_of(folder, **mode, **changes, batch_size=8, label_noise=0.2) for mode in MODES]
    assert isinstance(everywhere[0].splits["train"][0], torch.Tensor)
    assert isinstance(everywhere[2].splits["train"][0], Files)
    before = torch.get_rng_state()
    for number in range(3):
        for part in ("train", "val", "test"):
            expected, *others = (epoch(data, part, number) for data in everywhere)
            for batches in others:
                for (x, y), (wanted_x, wanted_y) in zip(batches, expected, strict=True):
                    assert torch.equal(x, wanted_x)
                    assert torch.equal(y, wanted_y)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not (REAL / "cifar10-jpeg").is_dir(), reason="NORMLAB_DATA_DIR names no folder with cifar10-jpeg")
@pytest.mark.slow  # tests/data/test_decoding.py compares single ones with Pillow by default
@pytest.mark.parametrize("in_memory", [True, False])
def test_real_jpegs_are_those_of_torchvisions_image_folder(in_memory, tmp_path):
    with tarfile.open(REAL / "cifar10-jpeg" / "cifar10-jpeg.tar.gz") as tar:
        few = [member for member in tar if re.fullmatch(r"test/\w+/00[012]\d.jpg", member.name)]
        tar.extractall(tmp_path, few, filter="data")
    theirs = datasets.ImageFolder(tmp_path / "test", PILToTensor())
    data = data_of(tmp_path / "test", in_memory=in_memory)
    loaded, labels = data.load()["train"]
    found = loaded if in_memory else next(loaded.batches([torch.arange(len(labels))]))
    assert len(theirs) == len(labels) == 300
    assert data.class_names == theirs.classes
    for (image, label), ours, number in zip(theirs, found, labels.tolist(), strict=True):
        assert torch.equal(ours, image)
        assert number == label


def test_an_epoch_left_early_and_two_at_once_are_right(folder):
    data = data_of(folder, in_memory=False, workers=2, batch_size=4)
    expected = [x for x, _ in epoch(data)]
    loader = data.train_dataloader()
    assert torch.equal(next(iter(loader))[0], expected[0])
    for one, other, wanted in zip(loader, data.train_dataloader(), expected, strict=True):
        assert torch.equal(one[0], wanted)
        assert torch.equal(other[0], wanted)


def test_workers_stay_over_epochs_and_end_with_the_run(folder):
    data = data_of(folder, in_memory=False, workers=2)
    source = data.splits["train"][0]

    def workers():
        return [worker.pid for worker in source.idle.loader._iterator._workers]

    epoch(data)
    first = workers()
    epoch(data, number=1)
    assert workers() == first
    data.teardown("fit")
    assert source.idle is None
    assert all(not os.path.exists(f"/proc/{pid}") for pid in first)


def test_a_worker_that_dies_says_what_to_do(folder, monkeypatch):
    data = data_of(folder, in_memory=False, workers=2, batch_size=4)
    epoch(data)
    for worker in data.splits["train"][0].idle.loader._iterator._workers:
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
    looking = _MultiProcessingDataLoaderIter._try_get_data
    monkeypatch.setattr(looking, "__defaults__", (0.1,))  # seconds in which torch finds that they are gone; it has 5
    with pytest.raises(RuntimeError, match=r"a process that decodes images died .*data.workers=0"):
        epoch(data)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_vanishes_later_is_named(workers, folder):
    data = data_of(folder, in_memory=False, workers=workers)
    (folder / "b" / "003.png").unlink()
    with pytest.raises(RuntimeError, match=r"^\S*b/003.png is not what it was: No such file"):
        [epoch(data, part) for part in ("train", "val", "test")]


def test_parts_of_their_own_are_kept(tmp_path):
    for part, count in (("train", 20), ("valid", 4), ("test", 6)):
        image_folder(tmp_path / part, images=count)
    data = data_of(tmp_path)
    assert [len(y) for y in (data.splits[part][1] for part in ("train", "val", "test"))] == [40, 8, 12]
    shutil.rmtree(tmp_path / "valid")
    data = data_of(tmp_path)
    assert [len(y) for y in (data.splits[part][1] for part in ("train", "val", "test"))] == [34, 6, 12]


def test_order_and_split_do_not_depend_on_where_the_folder_lies(folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    for (x, y), (other_x, other_y) in zip(epoch(data_of(folder)), epoch(data_of(moved)), strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)


@pytest.mark.parametrize("in_memory", [True, False])
def test_one_image_in_colour_makes_all_so(in_memory, tmp_path):
    tmp_path /= "images"
    for name in "ab":
        (tmp_path / name).mkdir(parents=True)
        for number in range(20):
            grey = Image.fromarray(np.full((4, 4), 10 * number, np.uint8))
            (grey.convert("RGB") if (name, number) == ("b", 7) else grey).save(tmp_path / name / f"{number}.png")
    data = data_of(tmp_path, in_memory=in_memory, workers=0)
    assert data.input_shape == (3, 4, 4)
    assert data.mean == [data.mean[0]] * 3
    os.remove(tmp_path / "b" / "7.png")
    assert data_of(tmp_path, in_memory=in_memory, workers=0).input_shape == (1, 4, 4)


def test_what_fits_a_quarter_of_memory_is_held(folder, monkeypatch):
    size = 60 * 3 * 8 * 8
    monkeypatch.setattr(gather, "_memory", lambda: 4 * size)
    assert isinstance(data_of(folder).splits["train"][0], torch.Tensor)
    monkeypatch.setattr(gather, "_memory", lambda: 4 * size - 1)
    assert isinstance(data_of(folder).splits["train"][0], Files)


def test_workers_are_this_processs_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(12), raising=False)
    assert [streamed.workers_here("auto", processes) for processes in (1, 2, 5, 24)] == [8, 6, 2, 1]
    assert streamed.workers_here(0, 1) == 0


def test_streamed_files_are_measured_once(folder, monkeypatch, cache):
    first = data_of(folder, in_memory=False, corrupt="skip")
    assert len(list(cache.glob("*.npz"))) == 1
    with monkeypatch.context() as patch:
        patch.setattr(gather, "_survey", lambda *_: pytest.fail("measured again"))
        again = data_of(folder, in_memory=False, corrupt="skip")
        assert (again.mean, again.std, again.input_shape) == (first.mean, first.std, first.input_shape)
        assert type(again.input_shape[0]) is int
        with pytest.raises(pytest.fail.Exception, match="measured again"):
            data_of(folder, in_memory=False, size=4)
    Image.new("RGB", (8, 8)).save(folder / "a" / "000.png")
    assert data_of(folder, in_memory=False, test_fraction=0.05, val_fraction=0.05).mean != first.mean
    for file in cache.glob("*.npz"):
        file.write_bytes(b"half")
    assert data_of(folder, in_memory=False).input_shape == (3, 8, 8)


def test_a_cache_that_cannot_be_written_is_said(folder, cache, caplog):
    cache.parent.write_text("a file")
    data_of(folder, in_memory=False)
    assert "every run decodes all images once more" in caplog.text


# What is wrong with a folder


def spoil(folder, how):
    """Makes one of the files of class b something else."""
    file = folder / "b" / "005.png"
    if how == "empty":
        file.write_bytes(b"")
    elif how == "text":
        file.write_text("no pixels")
    elif how == "cut off":
        file.write_bytes(file.read_bytes()[:100])
    elif how == "broken link":
        file.unlink()
        file.symlink_to(folder / "nowhere")
    elif how == "link to itself":
        file.unlink()
        file.symlink_to(file)


REASONS = {
    "empty": "the file is empty",
    "text": "no image",
    "cut off": ".",
    "broken link": "No such file",
    "link to itself": "Too many levels of symbolic links",
    "unreadable": "Permission denied",
}


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("how", REASONS)
def test_a_file_that_cannot_be_read_ends_the_run_or_is_left_out(how, in_memory, folder, monkeypatch, caplog):
    spoil(folder, how)
    if how == "unreadable":  # tests may run as root, who may read everything
        opening = builtins.open

        def refuse(file, *given, **named):
            if str(file).endswith("b/005.png"):
                raise PermissionError(13, "Permission denied", file)
            return opening(file, *given, **named)

        monkeypatch.setattr(builtins, "open", refuse)
    for _ in range(2):  # the second time from the cache
        with pytest.raises(ConfigError, match=rf"^\S*images/b/005.png cannot be read: {REASONS[how]}.*corrupt=skip$"):
            data_of(folder, in_memory=in_memory, workers=0)
        data = data_of(folder, in_memory=in_memory, workers=0, corrupt="skip")
        assert "1 of 60 files cannot be read and are left out: b/005.png" in caplog.text
        caplog.clear()
        assert sum(len(y) for _, y in data.splits.values()) == 59
        assert data.class_counts().tolist() == [13, 12, 13]


def test_those_left_out_change_nothing_else(folder, tmp_path):
    without = shutil.copytree(folder, tmp_path / "without")
    os.remove(without / "b" / "005.png")
    spoil(folder, "text")
    found, expected = epoch(data_of(folder, corrupt="skip")), epoch(data_of(without))
    for (x, y), (wanted_x, wanted_y) in zip(found, expected, strict=True):
        assert torch.equal(x, wanted_x)
        assert torch.equal(y, wanted_y)


@pytest.mark.parametrize("in_memory", [True, False])
def test_images_of_different_sizes_are_refused_or_resized(in_memory, folder):
    Image.new("RGB", (10, 9)).save(folder / "b" / "005.png")
    both = r"different sizes: \S*a/000.png has 8×8 pixels, \S*b/005.png 10×9: data.size= resizes all"
    with pytest.raises(ConfigError, match=both):
        data_of(folder, in_memory=in_memory)
    assert data_of(folder, in_memory=in_memory, size=5).input_shape == (3, 5, 5)


def no_images(root):
    (root / "a").mkdir()
    (root / "b").mkdir()
    (root / "a" / "notes.txt").write_text("hello")


def empty_class(root):
    image_folder(root, "ab")
    (root / "emu").mkdir()


def unknown_class(root):
    image_folder(root / "train", "ab")
    image_folder(root / "test", "abc")


def two_val(root):
    for part in ("train", "val", "valid"):
        image_folder(root / part)


def no_train(root):
    image_folder(root / "val")
    image_folder(root / "test")


def empty_part(root):
    image_folder(root / "train")
    (root / "test" / "a").mkdir(parents=True)


def loop(root):
    image_folder(root)
    (root / "a" / "again").symlink_to(root)


def all_corrupt(root):
    for file in image_folder(root).rglob("*.png"):
        file.write_text("x")


def one_class_corrupt(root):
    for file in (image_folder(root) / "a").glob("*.png"):
        file.write_text("x")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "no folder of a class in .*expected <class>/<image> there, or train/<class>/<image>"),
        (lambda root: Image.new("L", (4, 4)).save(root / "a.png"), "no folder of a class"),
        (no_images, "no images; they end in .jpg"),
        (empty_class, "folders of classes without an image: emu; remove them"),
        (lambda root: image_folder(root, "a"), "a single class, a; it takes two"),
        (lambda root: image_folder(root, "ab", images=1), r"fewer than two samples to split: a \(1\), b \(1\)"),
        (unknown_class, "classes that the training part lacks, in .*test: c"),
        (two_val, "two folders of the part val"),
        (no_train, "test, val and no train"),
        (empty_part, "no images in its part test"),
        (loop, "a/again is a link back to a folder that it lies in"),
        (all_corrupt, "none of 40 files can be read: a/000.png"),
        (one_class_corrupt, "folders of classes without an image: a"),
    ],
)
def test_folders_to_learn_nothing_from_are_refused(make, message, tmp_path):
    (tmp_path / "images").mkdir()
    make(tmp_path / "images")
    with pytest.raises(ConfigError, match=message):
        data_of(tmp_path / "images", corrupt="skip", workers=0)


def test_a_folder_that_may_not_be_listed(folder, monkeypatch):
    listing = os.scandir

    def refuse(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return listing(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ConfigError, match="images/b cannot be listed: Permission denied"):
        data_of(folder)


def test_a_path_that_is_no_folder_is_refused_before_anything_is_built(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="data.path= is needed: the folder of the images"):
        compose(["data=image_folder"])
    with pytest.raises(ConfigError, match="data.path=.*/none: there is no such folder"):
        compose(["data=image_folder", f"data.path={tmp_path}/none"])
    with pytest.raises(ConfigError, match="data.path=.*/file: that is a file; a folder is needed"):
        compose(["data=image_folder", f"data.path={tmp_path}/file"])


def test_what_is_no_image_is_counted_and_hidden_files_are_passed_over(folder, caplog):
    (folder / "a" / "notes.txt").touch()
    (folder / "b" / "deeper").mkdir()
    shutil.copy(folder / "a" / "000.png", folder / "b" / "deeper" / "X.PNG")
    (folder / "b" / "deeper" / "list.csv").touch()
    (folder / "a" / ".hidden.png").touch()
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / "readme.md").touch()
    data = data_of(folder)
    assert sum(len(y) for _, y in data.splits.values()) == 61
    assert "left out, being no images by their names: 2 files (.txt 1, .csv 1)" in caplog.text
    assert "left out, beside the folders of classes: 1 files" in caplog.text


# Prediction


@pytest.mark.parametrize("in_memory", [True, False])
def test_new_images_are_read_as_the_training_images_were(in_memory, folder, tmp_path):
    data = data_of(folder, size=6, in_memory=in_memory)
    data.save(tmp_path)
    fresh = instantiate(compose(["data=image_folder", f"data.path={folder}"]).data, size=6, in_memory=in_memory)
    fresh.restore(tmp_path)
    assert (list(fresh.mean), list(fresh.std), fresh.input_shape) == (data.mean, data.std, (3, 6, 6))
    assert list(fresh.class_names) == ["a", "b", "c"]
    x, names = new_samples(fresh, folder)
    assert names == sorted(f"{name}/{number:03}.png" for name in "abc" for number in range(20))
    expected = {image.numpy().tobytes() for image in whole(data)}
    assert {image.numpy().tobytes() for image in x} == expected
    one, names = new_samples(fresh, folder / "b" / "007.png")
    assert names == ["007.png"]
    assert torch.equal(one[0], x[27])
    assert fresh.transform()(one).dtype == torch.float32


@pytest.mark.parametrize("in_memory", [True, False])
def test_samples_are_called_by_their_files(in_memory, folder):
    data = data_of(folder, in_memory=in_memory)
    for part, (x, _) in data.splits.items():
        names = data.sample_names[part]
        x = x if isinstance(x, torch.Tensor) else next(x.batches([torch.arange(len(names))]))
        for name, image in zip(names, x, strict=True):
            assert np.array_equal(np.asarray(Image.open(folder / name)), image.permute(1, 2, 0).numpy())


def whole(data):
    for x, y in data.splits.values():
        yield from x if isinstance(x, torch.Tensor) else next(x.batches([torch.arange(len(y))]))


def test_input_that_does_not_fit_is_refused(folder, tmp_path):
    data = data_of(folder)
    Image.new("L", (5, 4)).save(tmp_path / "small.png")
    (tmp_path / "none").mkdir()
    (tmp_path / "text.jpg").write_text("x")
    for name, message in {
        "small.png": "images of 5×4 pixels; the network was trained on 8×8",
        "none": "holds no images",
        "nothing": "no such file or folder",
        "text.jpg": "text.jpg cannot be read: no image",
    }.items():
        with pytest.raises(ConfigError, match=message):
            new_samples(data, tmp_path / name)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_trains_end_to_end(mode, folder, quick_run):
    changes = [f"data.{key}={str(value).lower()}" for key, value in mode.items()]
    augment = ["data.crop=2", "data.cutout=3", "data.mix=cutmix", "data.label_noise=0.1"]
    assert quick_run("model=my_model", "data=image_folder", f"data.path={folder}", *changes, *augment).score is not None


def test_files_are_a_source(folder):
    source: Source = data_of(folder, in_memory=False).splits["train"][0]
    assert len(source[torch.tensor([3, 1])]) == 2
