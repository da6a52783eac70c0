"""Shared pieces: quick runs in a temporary folder, and the options that `conf/` holds."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from helpers.cases import QUICK
from helpers.samples import idx_files, image_folder
from lightning.pytorch.utilities import rank_zero_only
from sklearn.datasets import load_iris
from sklearn.utils import Bunch
from torch import distributed

from normlab.config.options import CONF
from normlab.config.source import forget
from normlab.distributed import collectives

# Two processes of the suite share the cores; more threads than cores make every step slower.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

# How variables begin that pytest, Lightning, Hydra, torch and the loggers set for a process.
OF_PROCESS = ("PYTEST_", "PL_", "PYTORCH_", "TORCH", "_TORCH", "HYDRA_", "CUBLAS_", "WANDB_", "MLFLOW_")


def pytest_configure(config: pytest.Config) -> None:
    """Hides the GPUs from all tests but those of `pytest -m gpu`, and lets Ctrl-C and a closed terminal be heard.

    `trainer.accelerator=auto` would take one wherever it is there, and what the suite promises bit for bit holds on the
    CPU. Worker processes and processes that tests start inherit the variable. It must be set before CUDA is first asked
    for a device, which importing torch does not do.

    A shell starts what runs in its background with Ctrl-C ignored, nohup what it runs with SIGHUP ignored, and
    processes inherit that: tests of Ctrl-C would wait for ever, and those of a closed terminal fail.
    """
    if config.option.markexpr.strip() != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(tryfirst=True)  # before a test's fixtures are made
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test of GPUs where there are too few of them."""
    marker = item.get_closest_marker("gpu")
    if marker is not None:
        wanted = marker.kwargs.get("devices", 1)
        if torch.cuda.device_count() < wanted:
            pytest.skip(f"needs CUDA devices: {wanted}; `pytest -m gpu` sees {torch.cuda.device_count()}")


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fails the test that leaves another environment, folder or rank to the tests after it in this process."""

    def state() -> dict[str, object]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(OF_PROCESS)}
        return environment | {"working folder": os.getcwd(), "rank": rank_zero_only.rank}

    before = state()
    yield
    assert state() == before


@pytest.fixture
def of_several(tmp_path, monkeypatch) -> Iterator[None]:
    """A world of one process that layers take for several."""
    distributed.init_process_group("gloo", f"file://{tmp_path}/meet", rank=0, world_size=1)
    monkeypatch.setattr(collectives, "several", lambda: True)
    yield
    distributed.destroy_process_group()


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
