"""Keeps the data sets that jobs of a sweep have set up for the next jobs in the same process."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from normlab.data.common.base import DataModule

OWN = ("batch_size", "drop_last", "on_device", "room", "seed", "trainer")  # attributes that jobs do not share
ROOM = 512 * 2**20  # bytes; a larger data set is kept alone, and only until a job needs another one

_kept: dict[str, dict[str, Any]] = {}  # the one that was used last stands last


def set_up(data: DataModule, load: Callable[[], None]) -> None:
    """Sets `data` up: with an earlier job's tensors where nothing that decides them differs, or else by `load`.

    Nothing may write into these tensors. Images that are read while the network trains are not kept. Where a file
    changes during a sweep, its jobs go on with what it was.
    """
    key = repr((type(data), [(name, value) for name, value in sorted(vars(data).items()) if name not in OWN]))
    if key in _kept:
        _kept[key] = _kept.pop(key)
        vars(data).update(_copied(_kept[key]))
        return
    _make_room(0)  # else memory would hold two large data sets
    load()
    if all(isinstance(x, Tensor) for x, _ in data.splits.values()):
        state = _copied({name: value for name, value in vars(data).items() if name not in OWN})
        _make_room(_size(state))
        _kept[key] = state


def _make_room(size: int) -> None:
    """Drops what was not used for longest until the rest and so many bytes more fit into ROOM."""
    while _kept and sum(map(_size, _kept.values())) + size > ROOM:
        _kept.pop(next(iter(_kept)))


def _size(state: dict[str, Any]) -> int:
    """The bytes of a data set's tensors."""
    return sum(part.untyped_storage().nbytes() for pair in state["splits"].values() for part in pair)


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value.copy() if isinstance(value, dict | list) else value for name, value in state.items()}
