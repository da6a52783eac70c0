"""Data given from Python, `normlab.run(config, data=…)`: datasets, loaders or arrays of each part."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from normlab.data.common.fingerprint import digest
from normlab.errors import ConfigError

PARTS = ("train", "val", "test")
EXPECTED = (
    "expected (train, val) or (train, val, test), each a dataset, a DataLoader or a pair of arrays (x, y), or a "
    "LightningDataModule"
)

Datasets = Sequence[Any]  # train, val and, if there is one, test


class OfDatasets(LightningDataModule):
    """Loaders of (train, val) or (train, val, test): datasets, or loaders that are taken as they are."""

    def __init__(self, datasets: Datasets, batch_size: int):
        super().__init__()
        self.datasets, self.batch_size = datasets, batch_size

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(0, shuffle=hasattr(self.datasets[0], "__len__"))  # an iterable dataset has its own order

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(1)

    def _loader(self, place: int, **options: Any) -> DataLoader[Any]:
        given = self.datasets[place]
        return given if isinstance(given, DataLoader) else DataLoader(given, self.batch_size, **options)


class WithTest(OfDatasets):
    """Datasets of which the third is the test part; Lightning takes a part to be there that has a method."""

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader(2)


def take(data: Any, config: DictConfig) -> tuple[LightningDataModule, dict[str, Any]]:
    """The given data as a data module, and what the run's configuration records of it under `data`.

    Arrays become tensors, of floating-point numbers float32. Raises ConfigError for what is no data to train on, and
    for typed keys of `data` that the given data does not follow.
    """
    target = {"_target_": f"{type(data).__module__}.{type(data).__qualname__}"}
    if isinstance(data, LightningDataModule):
        _check_typed(config, ())
        return data, target
    datasets = list(_datasets(data))
    loaders = any(isinstance(dataset, DataLoader) for dataset in datasets)
    _check_typed(config, () if loaders else ("data.batch_size",))
    kind = WithTest if len(datasets) == 3 else OfDatasets
    module = kind(datasets, config.data.get("batch_size", 64))
    recorded = {} if loaders else {"batch_size": module.batch_size}
    named = zip(PARTS, datasets, strict=False)
    recorded |= {name: fingerprint for name, dataset in named if (fingerprint := _fingerprint(dataset))}
    return module, {"_target_": f"{OfDatasets.__module__}.{OfDatasets.__qualname__}", **recorded}


def was_given(config: DictConfig) -> bool:
    """Whether a run's configuration says that its datasets were given from Python; they cannot be made from it."""
    return config.data._target_ == f"{OfDatasets.__module__}.{OfDatasets.__qualname__}"


def _check_typed(config: DictConfig, followed: Sequence[str]) -> None:
    for line in config.overrides if config.action == "fit" else ():  # the others look at a run as it was typed
        key = line.lstrip("+~").partition("=")[0]
        if key.startswith("data.") and key not in followed:
            raise ConfigError(f"{line}: the data given from Python does not follow it; leave one of them out")


def _datasets(data: Any) -> Iterator[Any]:
    kind = type(data).__name__
    if hasattr(data, "to_csv"):
        raise ConfigError(
            f"data: got a {kind}; write it by frame.to_csv('table.csv', index=False) and choose data=csv "
            "data.path=table.csv data.target=<column>, which finds numbers and categories and cuts the parts"
        )
    if isinstance(data, Dataset | DataLoader | np.ndarray | Tensor):
        raise ConfigError(
            f"data: got a single {kind}; {EXPECTED}: torch.utils.data.random_split(dataset, [0.7, 0.15, 0.15]) cuts a "
            "dataset. To predict new samples, give them as test beside the train and val of the fit"
        )
    if isinstance(data, str | dict) or not isinstance(data, Sequence):
        raise ConfigError(f"data: got a {kind}; {EXPECTED}")
    if any(isinstance(part, np.ndarray | Tensor) for part in data):
        raise ConfigError(f"data: got arrays; {EXPECTED}: data=((x_train, y_train), (x_val, y_val))")
    if not 2 <= len(data) <= 3:
        raise ConfigError(f"data: got {len(data)} parts; {EXPECTED}")
    for name, part in zip(PARTS, data, strict=False):
        dataset = _dataset(part, name)
        if hasattr(dataset, "__len__") and not len(dataset):
            raise ConfigError(f"data: the {name} dataset is empty")
        yield dataset


def _dataset(part: Any, name: str) -> Any:
    if isinstance(part, Dataset | DataLoader):
        return part
    if not (isinstance(part, tuple | list) and len(part) == 2):
        if hasattr(part, "__getitem__") and not isinstance(part, str | dict | tuple) and not hasattr(part, "to_csv"):
            return part  # as DataLoader takes it, a list of samples too
        raise ConfigError(f"data: {name} is a {type(part).__name__}; {EXPECTED}")
    tensors = [_tensor(values, f"data: {kind} of {name}") for kind, values in zip("xy", part, strict=True)]
    if len(tensors[0]) != len(tensors[1]):
        raise ConfigError(f"data: {name} has {len(tensors[0])} samples x and {len(tensors[1])} targets y")
    return TensorDataset(*tensors)


def _tensor(values: Any, where: str) -> Tensor:
    try:
        tensor = values if isinstance(values, Tensor) else torch.from_numpy(_writable(np.asarray(values)))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{where} holds no numbers: {error}") from error
    if not tensor.ndim:
        raise ConfigError(f"{where} is a single number; {EXPECTED}")
    return tensor.float() if tensor.is_floating_point() else tensor


def _writable(array: np.ndarray) -> np.ndarray:
    """The array, or a copy of a read-only one, such as pandas gives, about which torch would warn."""
    return array if array.flags.writeable else array.copy()


def _fingerprint(dataset: Any) -> str:
    """Text by which data is told from other data: its number of samples, and for tensors a digest of their values."""
    dataset = dataset.dataset if isinstance(dataset, DataLoader) else dataset
    if not hasattr(dataset, "__len__"):
        return ""
    size = f"{len(dataset)} samples"
    if type(dataset) is not TensorDataset:
        return size
    return f"{size}, {digest(*dataset.tensors)}"
