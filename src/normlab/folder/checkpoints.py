"""Reads checkpoints whole or not at all. They hold tensors and plain values only, so that loading runs no code."""

import logging
import os
import pickle
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from normlab.distributed.shards import cut_like
from normlab.errors import ConfigError, DamagedError
from normlab.folder.files import damaged, read_rows
from normlab.folder.place import shown

log = logging.getLogger(__name__)

DOS_FOLDER = 0x10  # among a record's attributes in a zip archive

# A fit can go on from a checkpoint that has these keys of Lightning's.
RESUMABLE = {"epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks"}


def read(path: Path, mmap: bool = False) -> dict[str, Any]:
    """Reads what `torch.save` has written, onto the CPU. Raises DamagedError for any other file.

    Every record is first compared with its checksum, which torch does not do; that takes a second a gigabyte. Files
    from before torch 1.6 have no checksums and are taken as they are. mmap: tensors stay on disk until they are used.
    """
    archive = False
    try:
        archive = zipfile.is_zipfile(path)
        changed = _changed_record(path) if archive else None
        loaded = {} if changed else torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and archive)
    except Exception as error:  # the file may hold anything, and its readers raise anything
        unknown = archive and isinstance(error, pickle.UnpicklingError)
        reason = "it holds more than tensors and plain values" if unknown else "it is empty, cut off or of another kind"
        raise _no_checkpoint(path, reason) from error
    if changed:
        raise _no_checkpoint(path, f"its part {changed} was changed")
    if not isinstance(loaded, dict) or not _are_tensors(loaded.get("state_dict")):
        raise _no_checkpoint(path, "it has no weights under state_dict")
    return loaded


def load_weights(task: nn.Module, path: Path) -> None:
    """Loads a run's checkpoint into its task.

    Raises DamagedError for a file that is no checkpoint, and ConfigError with the differences for another network's.
    """
    saved, expected = read(path)["state_dict"], task.state_dict()
    _check_network(expected, saved, path)
    task.load_state_dict({key: cut_like(value, expected[key]) for key, value in saved.items()})


def prepare_resuming(folder: Path, task: nn.Module) -> None:
    """Makes `last.ckpt` the newest whole checkpoint of a fit, if there is one.

    One process calls this, before any process reads the file. A damaged file is set aside under another name. If that
    was the last one, the best one takes its place: it is an earlier epoch of the same run, which then goes through the
    same steps again. If the best one is lost, and was not the last, the run begins anew, since it could not end on it.
    Raises ConfigError for a checkpoint of another network, and where metrics.csv ends before the checkpoint.
    """
    last, best = (folder / "checkpoints" / f"{which}.ckpt" for which in ("last", "best"))
    was_begun = last.is_file() or best.is_file()
    newest, older = _read_or_set_aside(last), _read_or_set_aside(best)
    if newest is None and older is not None:
        log.warning(f"going on from {shown(best)}, epoch {older['epoch']}")
        part = last.with_suffix(".part")
        shutil.copyfile(best, part)
        os.replace(part, last)
        newest = older
    if newest is not None and older is None and _best_epoch(newest) not in (None, newest["epoch"]):
        _set_aside(last, "the best epoch is lost")
        newest = None
    if newest is None:
        if was_begun:
            log.warning("the run begins anew")
        return
    _check_network(task.state_dict(), newest["state_dict"], last)
    table = folder / "metrics.csv"
    rows = read_rows(table)
    if table.is_file() and (not rows or int(rows[-1]["epoch"]) < newest["epoch"]):
        raise damaged(table, f"has no row of epoch {newest['epoch']}, which {shown(last)} is of")


def _read_or_set_aside(path: Path) -> dict[str, Any] | None:
    """A checkpoint that a fit can go on from; None where there is none, or where it was damaged and set aside."""
    if not path.is_file():
        return None
    try:
        checkpoint = read(path, mmap=True)
        if not checkpoint.keys() >= RESUMABLE or "Record" not in checkpoint["callbacks"]:
            raise _no_checkpoint(path, "it is of another program")
    except DamagedError as error:
        _set_aside(path, str(error))
        return None
    return checkpoint


def _best_epoch(checkpoint: dict[str, Any]) -> int | None:
    best = checkpoint["callbacks"]["Record"]["best"]
    return best and best["epoch"]


def _set_aside(path: Path, reason: str) -> None:
    aside = path.with_name(f"{path.name}.aside")
    os.replace(path, aside)
    log.warning(f"{reason}; set aside as {shown(aside)}")


def _check_network(expected: Mapping[str, Tensor], saved: Mapping[str, Tensor], path: Path) -> None:
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


def _changed_record(archive: Path) -> str | None:
    """A record that differs from its checksum, or that is marked as a folder, which torch would skip; None for none."""
    with zipfile.ZipFile(archive) as records:
        folders = (record.filename for record in records.infolist() if record.external_attr & DOS_FOLDER)
        return next(folders, None) or records.testzip()


def _are_tensors(weights: Any) -> bool:
    return isinstance(weights, dict) and all(isinstance(value, Tensor) for value in weights.values())


def _no_checkpoint(path: Path, reason: str) -> DamagedError:
    return DamagedError(f"{shown(path)} is no checkpoint of normlab: {reason}")
