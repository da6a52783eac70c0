"""Reads checkpoints whole or not at all. They hold tensors and plain values only, so that loading runs no code."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from normlab.distributed.shards import cut_like
from normlab.errors import ConfigError, DamagedError
from normlab.folder.place import shown

DOS_FOLDER = 0x10  # among a record's attributes in a zip archive


class PickledError(DamagedError):
    """A file holds more than tensors and plain values."""


def read(path: Path, mmap: bool = False, sums: bool = True) -> dict[str, Any]:
    """Reads a checkpoint as `load_plain` does. Raises DamagedError for any other file."""
    try:
        loaded = load_plain(path, mmap, sums)
    except DamagedError as error:
        raise no_checkpoint(path, str(error)) from error
    if not isinstance(loaded, dict) or not _are_tensors(loaded.get("state_dict")):
        raise no_checkpoint(path, "it has no weights under state_dict")
    return loaded


def load_plain(path: Path, mmap: bool = False, sums: bool = True) -> Any:
    """Reads what `torch.save` has written, onto the CPU. Raises DamagedError with the reason for any other file.

    Every record is first compared with its checksum, which torch does not do; that takes a second a gigabyte. Files
    from before torch 1.6 have no checksums and are taken as they are. mmap: tensors stay on disk until they are used.
    sums: false leaves the checksums out, for a reader of all but the tensors.
    """
    archive = False
    try:
        archive = zipfile.is_zipfile(path)
        changed = _changed_record(path, sums) if archive else None
        loaded = {} if changed else torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and archive)
    except Exception as error:  # the file may hold anything, and its readers raise anything
        if archive and isinstance(error, pickle.UnpicklingError):
            raise PickledError("it holds more than tensors and plain values") from error
        raise DamagedError("it is empty, cut off or of another kind") from error
    if changed:
        raise DamagedError(f"its part {changed} was changed")
    return loaded


def load_weights(task: nn.Module, path: Path) -> None:
    """Loads a run's checkpoint into its task.

    Raises DamagedError for a file that is no checkpoint, and ConfigError with the differences for another network's.
    """
    saved, expected = read(path)["state_dict"], task.state_dict()
    check_network(expected, saved, path)
    task.load_state_dict({key: cut_like(value, expected[key]) for key, value in saved.items()})


def epochs_ended(checkpoint: dict[str, Any]) -> int:
    """How many epochs of a fit had ended when it was saved."""
    return checkpoint["epoch"] + ("within_epoch" not in checkpoint)


def check_network(expected: Mapping[str, Tensor], saved: Mapping[str, Tensor], path: Path) -> None:
    """Raises ConfigError where the saved weights are not those that a network expects."""
    differences = [f"{key} is missing" for key in expected.keys() - saved.keys()]
    differences += [f"{key} is not in this network" for key in saved.keys() - expected.keys()]
    differences += [
        f"{key} is {tuple(saved[key].shape)} there, {tuple(expected[key].shape)} here"
        for key in expected.keys() & saved.keys()
        if saved[key].shape != expected[key].shape
    ]
    if differences:
        lines = [f"  {line}" for line in sorted(differences)[:5]]
        more = [f"  and {len(differences) - 5} more"] if len(differences) > 5 else []
        raise ConfigError("\n".join([f"{path} belongs to another network:", *lines, *more]))


def _changed_record(archive: Path, sums: bool) -> str | None:
    """A record that differs from its checksum, or that is marked as a folder, which torch would skip; None for none.

    sums: whether checksums are looked at.
    """
    with zipfile.ZipFile(archive) as records:
        folders = (record.filename for record in records.infolist() if record.external_attr & DOS_FOLDER)
        return next(folders, None) or (records.testzip() if sums else None)


def _are_tensors(weights: Any) -> bool:
    return isinstance(weights, dict) and all(isinstance(value, Tensor) for value in weights.values())


def no_checkpoint(path: Path, reason: str) -> DamagedError:
    return DamagedError(f"{shown(path)} is no checkpoint of normlab: {reason}")
