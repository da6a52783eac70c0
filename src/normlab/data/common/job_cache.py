"""Keeps the data set that a job of a sweep has set up for the next job in the same process."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from normlab.data.common.base import DataModule

OWN = ("batch_size", "drop_last", "on_device", "room", "seed", "trainer")  # attributes that jobs do not share

_kept: dict[str, dict[str, Any]] = {}  # holds one data set at most


def set_up(data: DataModule, load: Callable[[], None]) -> None:
    """Sets `data` up: with the last job's tensors where nothing that decides them differs, or else by `load`.

    Nothing may write into these tensors. Images that are read while the network trains are not kept. Where a file
    changes during a sweep, its jobs go on with what it was.
    """
    key = repr((type(data), [(name, value) for name, value in sorted(vars(data).items()) if name not in OWN]))
    if key in _kept:
        vars(data).update(_copied(_kept[key]))
        return
    _kept.clear()  # else memory would hold two data sets
    load()
    if all(isinstance(x, Tensor) for x, _ in data.splits.values()):
        _kept[key] = _copied({name: value for name, value in vars(data).items() if name not in OWN})


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value.copy() if isinstance(value, dict | list) else value for name, value in state.items()}
