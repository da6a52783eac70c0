"""Shared pieces: quick runs in a temporary folder, and the options that `conf/` holds."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_iris
from sklearn.utils import Bunch
from torch import distributed

from normlab.config.options import CONF
from normlab.config.options import options as listed
from normlab.config.source import forget
from normlab.distributed import collectives

ROOT = Path(__file__).parent.parent
ORIGINAL = ("cifar10", "cifar100", "svhn")  # data sets that take their original files alone
QUICK = ["trainer=debug", "logger=none", "data.batch_size=32"]

# Two processes of the suite share the cores; more threads than cores make every step slower.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_configure(config: pytest.Config) -> None:
    """Hides the GPUs from all tests but those of `pytest -m gpu`, and lets Ctrl-C be heard.

    `trainer.accelerator=auto` would take one wherever it is there, and what the suite promises bit for bit holds on the
    CPU. Worker processes and processes that tests start inherit the variable. It must be set before CUDA is first asked
    for a device, which importing torch does not do.

    A shell starts what runs in its background with Ctrl-C ignored, and processes inherit that: tests of Ctrl-C would
    wait for ever.
    """
    if config.option.markexpr.strip() != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before a test's fixtures are made
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test of GPUs where there are too few of them."""
    marker = item.get_closest_marker("gpu")
    if marker is not None:
        wanted = marker.kwargs.get("devices", 1)
        if torch.cuda.device_count() < wanted:
            pytest.skip(f"needs CUDA devices: {wanted}; `pytest -m gpu` sees {torch.cuda.device_count()}")


@pytest.fixture
def of_several(tmp_path, monkeypatch) -> Iterator[None]:
    """A world of one process that layers take for several."""
    distributed.init_process_group("gloo", f"file://{tmp_path}/meet", rank=0, world_size=1)
    monkeypatch.setattr(collectives, "several", lambda: True)
    yield
    distributed.destroy_process_group()


def rest_slow(cases: Iterable[Any], quick: Callable[[tuple[Any, ...]], bool]) -> list[Any]:
    """Cases of a test, each a value or a tuple: those that are `quick` run by default, the others by -m slow."""
    tuples = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*case, marks=() if quick(case) else pytest.mark.slow) for case in tuples]


def options(group: str) -> list[str]:
    """A group's options; an empty group would make a test pass without testing anything."""
    found = listed(group)
    assert found, f"conf/{group} holds no option"
    return found


def bundled() -> list[str]:
    """The data sets that need neither a file nor a download, and are no bytes."""
    needing = re.compile(r"^path:|^root:|common/files|common/images", re.M)
    return [option for option in options("data") if not needing.search((ROOT / f"conf/data/{option}.yaml").read_text())]


def image_folder(folder: Path, classes: str = "ab", images: int = 20, size: tuple[int, int] = (8, 8)) -> Path:
    """`<folder>/<class>/<number>.png` of random pixels, another for each class and number; width and height `size`."""
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(images):
            random = np.random.default_rng([ord(name), number])
            pixels = random.integers(0, 256, (*reversed(size), 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03}.png")
    return folder


class Streamed:
    """Samples of a tensor, as if they did not lie in memory; refuses to give more than a few at once."""

    def __init__(self, x: torch.Tensor):
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: torch.Tensor) -> "Streamed":
        return Streamed(self.x[index])

    def batches(self, steps: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        assert max(map(len, steps)) <= 512
        return (self.x[step] for step in steps)


def idx_files(root: Path, name: str) -> Path:
    """MNIST's files, with 200 images to train and 50 to test on."""
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 200), ("t10k", 50)):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            (raw / f"{part}-{kind}-ubyte").write_bytes(head + array.tobytes())
    return root


def train(*overrides: str, cwd: Path, check: int = 0) -> subprocess.CompletedProcess[str]:
    """`python train.py` as a person types it, in another folder; asserts its exit code."""
    command = [sys.executable, str(ROOT / "train.py"), *overrides]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == check, done.stdout + done.stderr
    return done


@pytest.fixture
def conf(tmp_path, monkeypatch) -> Iterator[Path]:
    """A copy of `conf/` that this process composes from, for files that a person would write there."""
    copy = tmp_path / "conf"
    shutil.copytree(CONF, copy, ignore=shutil.ignore_patterns("local", "__pycache__"))
    spec = spec_from_file_location("normlab.conf", copy / "__init__.py", submodule_search_locations=[str(copy)])
    assert spec is not None
    assert spec.loader is not None
    package = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "normlab.conf", package)
    forget()
    yield copy
    forget()


@pytest.fixture
def quick_run(tmp_path):
    """Runs a configuration in this process: one batch of each stage unless told otherwise."""
    from normlab import compose, run

    def go(*overrides: str, folder: str = "run", data=None):
        return run(compose([*QUICK, *overrides]), folder=tmp_path / folder, data=data)

    return go


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Gives a data option what it is to read, and returns the overrides that say where that lies."""

    def go(option: str) -> list[str]:
        if option == "image_folder":
            return [f"data.path={image_folder(tmp_path / 'images', images=40)}"]
        if option in ("mnist", "fashion_mnist"):
            return [f"data.root={idx_files(tmp_path, 'MNIST' if option == 'mnist' else 'FashionMNIST')}"]
        if option not in ("csv", "parquet", "openml"):
            return []
        frame = load_iris(as_frame=True).frame.rename(columns=lambda name: name.removesuffix(" (cm)"))
        frame["size"] = frame["petal length"].map(lambda length: "small" if length < 3 else "large")
        if option == "openml":
            bunch = Bunch(frame=frame, target_names=["target"])
            monkeypatch.setattr("normlab.data.openml.fetch_openml", lambda **keys: bunch)
            return ["data.name=iris"]
        path = tmp_path / f"iris.{option}"
        frame.to_csv(path, index=False) if option == "csv" else frame.to_parquet(path)
        return [f"data.path={path}", "data.target=target"]

    return go
