"""A person's own data in place of ours: a LightningDataModule, or datasets."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from lightning import LightningDataModule
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from normlab.errors import ConfigError

log = logging.getLogger(__name__)

Datasets = Sequence[Dataset[Any]]  # train, val and, if there is one, test


def adopt(data: LightningDataModule | Datasets, config: DictConfig) -> LightningDataModule:
    """Gives own data the facts that normlab needs, and says which guarantees end.

    Facts that the data module has as attributes are taken: `task` (classify or regress), `input_shape`,
    `out_features`. Others are read off its training batches, which must be pairs (x, y), or triples (x, y, domain) for
    `norm=domain`: integer y (N,) are classes, floating-point y (N, width) or (N,) a target to regress. The
    configuration then names the data's class.
    """
    if not isinstance(data, LightningDataModule):
        data = _OfDatasets(data, config.data.batch_size)
    if not getattr(data, "task", None):
        data.prepare_data()
        data.setup("fit")
        _read_facts(data)
    config.data = {"_target_": f"{type(data).__module__}.{type(data).__qualname__}"}
    log.warning(
        "own data: splits, order and augmentation are yours, so resuming bit by bit and equal results on several "
        "processes are not guaranteed"
    )
    return data


class _OfDatasets(LightningDataModule):
    def __init__(self, datasets: Datasets, batch_size: int):
        super().__init__()
        if not 2 <= len(datasets) <= 3:
            raise ConfigError(f"data: got {len(datasets)} datasets; expected (train, val) or (train, val, test)")
        self.datasets, self.batch_size = datasets, batch_size
        if len(datasets) == 3:
            self.test_dataloader = lambda: DataLoader(self.datasets[2], self.batch_size)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.datasets[0], self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.datasets[1], self.batch_size)


def _read_facts(data: Any) -> None:
    shape: tuple[int, ...] = ()
    targets: list[Tensor] = []
    for batch in data.train_dataloader():
        if not isinstance(batch, Sequence) or len(batch) not in (2, 3):
            raise ConfigError(
                f"data: training batches must be pairs (x, y), or (x, y, domain); got {type(batch).__name__}"
            )
        shape = tuple(batch[0].shape[1:])
        targets.append(torch.as_tensor(batch[1]))
    if not targets:
        raise ConfigError("data: the training loader is empty")
    target = torch.cat(targets)
    data.input_shape = shape
    data.task = "regress" if target.is_floating_point() else "classify"
    if data.task == "classify":
        data.out_features = int(target.max()) + 1
        return
    target = target.reshape(len(target), -1)
    data.out_features = target.shape[1]
    std, mean = torch.std_mean(target, dim=0, correction=0)
    data.target_statistics = lambda: (mean, std)
