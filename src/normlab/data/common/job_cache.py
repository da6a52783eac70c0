"""The data set that a job of a sweep has set up, for the next job in the same process."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from normlab.data.common.base import DataModule

OWN = ("batch_size", "drop_last", "on_device", "room", "seed", "trainer")  # what each job has for itself

_kept: dict[str, dict[str, Any]] = {}  # one data set at most


def set_up(data: DataModule, load: Callable[[], None]) -> None:
    """Sets `data` up: by `load`, or with the very tensors of the job before where nothing that decides them differs.

    Nothing writes into them. Images that are read as they are needed are not kept. A file that changes while a sweep
    runs is read as it was.
    """
    key = repr((type(data), [(name, value) for name, value in sorted(vars(data).items()) if name not in OWN]))
    if key in _kept:
        vars(data).update(_copied(_kept[key]))
        return
    _kept.clear()  # before there are two
    load()
    if all(isinstance(x, Tensor) for x, _ in data.splits.values()):
        _kept[key] = _copied({name: value for name, value in vars(data).items() if name not in OWN})


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value.copy() if isinstance(value, dict | list) else value for name, value in state.items()}
