"""torchvision's sets: read where they lie, downloaded where not; small files in their formats, and the real MNIST."""

import gzip
import os
import pickle
import threading
import urllib.request
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from helpers.samples import idx_files
from hydra.utils import instantiate
from torchvision import datasets

from normlab.config.compose import compose
from normlab.data.fake import Fake
from normlab.errors import ConfigError

REAL = Path(os.environ.get("NORMLAB_DATA_DIR", "-"))
real_mnist = pytest.mark.skipif(not (REAL / "MNIST").is_dir(), reason="NORMLAB_DATA_DIR names no folder with MNIST")
SETS = ["mnist", "fashion_mnist", "cifar10", "cifar100", "svhn"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing here may ask the network."""

    def refuse(*args, **kwargs):
        raise URLError("no network here")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def data_of(option, root, **changes):
    data = instantiate(compose([f"data={option}", f"data.root={root}"]).data, **changes)
    data.prepare_data()
    data.setup()
    return data


@pytest.mark.parametrize(("option", "name"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_read_as_torchvision_does(option, name, packed, tmp_path):
    idx_files(tmp_path, name)
    theirs = getattr(datasets, name)(tmp_path, train=False)
    if packed:
        for file in (tmp_path / name / "raw").iterdir():
            file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    data = data_of(option, tmp_path)
    x, y = data.splits["test"]
    assert torch.equal(x[:, 0], theirs.data)
    assert torch.equal(y, theirs.targets)
    assert (data.input_shape, data.out_features) == ((1, 28, 28), 10)
    assert data.class_names[3] == ("three" if option == "mnist" else "Dress")
    assert [len(y) for _, y in data.splits.values()] == [180, 20, 50]
    assert list((tmp_path / name / "raw").glob("*.gz")) or not packed  # nothing was unpacked


@real_mnist
def test_the_real_mnist():
    data = data_of("mnist", REAL)
    assert [len(y) for _, y in data.splits.values()] == [54_000, 6_000, 10_000]
    assert torch.bincount(data.splits["test"][1]).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert (round(data.mean[0], 3), round(data.std[0], 3)) == (0.131, 0.308)


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """CIFAR-10 and -100 of a few images; torchvision would refuse them by their checksums."""
    monkeypatch.setattr(datasets.utils, "check_integrity", lambda path, md5=None: Path(path).is_file())
    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda path, md5=None: Path(path).is_file())
    for kind, key in ((datasets.CIFAR10, "labels"), (datasets.CIFAR100, "fine_labels")):
        folder = tmp_path / kind.base_folder
        folder.mkdir()
        classes = [f"c{number}" for number in range(4)]
        (folder / kind.meta["filename"]).write_bytes(pickle.dumps({kind.meta["key"]: classes}))
        for number, (name, _) in enumerate((*kind.train_list, *kind.test_list)):
            pixels = np.random.default_rng(number).integers(0, 256, (40, 3072), dtype=np.uint8)
            (folder / name).write_bytes(pickle.dumps({"data": pixels, key: [row % 4 for row in range(40)]}))
    return tmp_path


@pytest.mark.parametrize(("option", "kind"), [("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)])
def test_cifar(option, kind, cifar):
    data, theirs = data_of(option, cifar), kind(cifar, train=False)
    x, y = data.splits["test"]
    assert torch.equal(x.permute(0, 2, 3, 1), torch.from_numpy(theirs.data))
    assert y.tolist() == theirs.targets
    assert (data.input_shape, data.class_names) == ((3, 32, 32), ["c0", "c1", "c2", "c3"])
    assert data.augmentation() is not None


def test_svhn(tmp_path, monkeypatch):
    from scipy.io import savemat

    monkeypatch.setattr(datasets.svhn, "check_integrity", lambda path, md5=None: Path(path).is_file())
    for part, count in (("train", 200), ("test", 30)):
        pixels = np.random.default_rng(count).integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        labels = np.arange(count)[:, None] % 10 + 1  # 10 stands for the digit 0
        savemat(tmp_path / f"{part}_32x32.mat", {"X": pixels, "y": labels})
    data, theirs = data_of("svhn", tmp_path), datasets.SVHN(tmp_path, "test")
    x, y = data.splits["test"]
    assert torch.equal(x, torch.from_numpy(np.ascontiguousarray(theirs.data)))
    assert y.tolist() == theirs.labels.tolist() == [row % 10 for row in range(1, 31)]
    assert data.class_names == [str(digit) for digit in range(10)]


def test_size_and_channels_are_those_of_their_keys(tmp_path):
    data = data_of("mnist", idx_files(tmp_path, "MNIST"), size=16, channels=3)
    assert data.input_shape == (3, 16, 16) == tuple(data.splits["train"][0].shape[1:])
    assert next(iter(data.train_dataloader()))[0].shape[1:] == (3, 16, 16)


@pytest.mark.parametrize("option", SETS)
def test_a_download_that_fails_names_root_and_what_is_missing(option, tmp_path, capfd):
    missing = {"mnist": "train-images-idx3-ubyte", "cifar10": "data_batch_1", "svhn": "train_32x32.mat"}
    with pytest.raises(
        ConfigError, match=f"data.root={tmp_path}/sub: there is no .*{missing.get(option, '')}.*"
    ) as error:
        data_of(option, tmp_path / "sub")
    assert "the download failed" in str(error.value)
    assert "no network here" in str(error.value)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_root_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/data: there is no .* \(.*Not a directory"):
        data_of("mnist", tmp_path / "file" / "data")


def test_of_several_processes_one_downloads(tmp_path, monkeypatch):
    calls = []

    def download(self):
        calls.append(self)
        idx_files(self.root, "MNIST")

    data = [instantiate(compose(["data=mnist", f"data.root={tmp_path}"]).data) for _ in range(4)]
    monkeypatch.setattr(type(data[0]), "download", download)
    threads = [threading.Thread(target=one.prepare_data) for one in data]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    data[1].setup()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no idx file"),
        (b"<html>", "is no idx file"),
        (
            bytes([0, 0, 8, 3]) + np.array([200, 28, 28], ">i4").tobytes() + bytes(50),
            r"66 bytes, not .* \(200, 28, 28\)",
        ),
    ],
)
def test_a_damaged_file_is_named(content, message, tmp_path):
    idx_files(tmp_path, "MNIST")
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ConfigError, match=f"MNIST/raw is damaged \\(train-images-idx3-ubyte.*{message}"):
        data_of("mnist", tmp_path)


def test_a_file_that_was_packed_in_part_only(tmp_path):
    raw = idx_files(tmp_path, "MNIST") / "MNIST" / "raw"
    packed = gzip.compress((raw / "t10k-images-idx3-ubyte").read_bytes())
    (raw / "t10k-images-idx3-ubyte").unlink()
    (raw / "t10k-images-idx3-ubyte.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ConfigError, match="MNIST/raw is damaged"):
        data_of("mnist", tmp_path)


def test_fake_images_are_repeatable_and_of_their_keys():
    config = compose(["data=fake", "data.samples=90", "data.classes=3", "data.size=5", "data.channels=1"]).data
    one, other = instantiate(config), instantiate(config)
    assert (one.input_shape, one.out_features) == ((1, 5, 5), 3)
    for data in (one, other):
        data.setup()
    assert torch.equal(one.splits["train"][0], other.splits["train"][0])
    assert sum(len(y) for _, y in one.splits.values()) == 90
    with pytest.raises(ConfigError, match="fake images have none of their own"):
        Fake(size=None, channels=3)


@pytest.mark.parametrize("option", SETS)
def test_where_files_lie_and_how_they_are_read_leaves_the_run_the_same(option):
    from normlab.folder.identity import config_hash

    one, other = (compose([f"data={option}", f"data.root={root}"]) for root in ("a", "b"))
    assert config_hash(one) == config_hash(other) != config_hash(compose([f"data={option}", "data.crop=3"]))
