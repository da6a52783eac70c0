"""Reading checkpoints: tensors and plain values only, so that loading one runs no code; and whole, or not at all."""

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

# What a fit goes on from, as Lightning names it.
RESUMABLE = {"epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks"}


def read(path: Path, mmap: bool = False) -> dict[str, Any]:
    """What `torch.save` has written, on the CPU. Raises DamagedError for anything else.

    Every record is compared with its checksum first, which torch does not do: that takes a second a gigabyte. Files
    from before torch 1.6 have no checksums and are taken as they are. mmap: tensors stay on disk until they are used.
    """
    archive = False
    try:
        archive = zipfile.is_zipfile(path)
        changed = _changed_record(path) if archive else None
        found = {} if changed else torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and archive)
    except Exception as error:  # whatever the readers of a file stumble over that may hold anything
        unknown = archive and isinstance(error, pickle.UnpicklingError)
        reason = "it holds more than tensors and plain values" if unknown else "it is empty, cut off or of another kind"
        raise _no_checkpoint(path, reason) from error
    if changed:
        raise _no_checkpoint(path, f"its part {changed} was changed")
    if not isinstance(found, dict) or not _are_tensors(found.get("state_dict")):
        raise _no_checkpoint(path, "it has no weights under state_dict")
    return found


def load_weights(task: nn.Module, path: Path) -> None:
    """Loads a run's checkpoint into its task.

    Raises DamagedError for a file that is no checkpoint, ConfigError for one of another network, naming what differs.
    """
    found, expected = read(path)["state_dict"], task.state_dict()
    _check_network(expected, found, path)
    task.load_state_dict({key: cut_like(value, expected[key]) for key, value in found.items()})


def prepare_resuming(folder: Path, task: nn.Module) -> None:
    """Makes `last.ckpt` the newest whole checkpoint of a fit, if it has one; for one process, before any reads it.

    A damaged file is set aside under another name. In place of the last the best is taken: an earlier epoch of the same
    run, which goes through the same steps again from there. Where the best is lost, and is not the last, the run begins
    anew, since it could not end on it. Raises ConfigError for a checkpoint of another network, and where metrics.csv
    does not reach as far as the checkpoint.
    """
    last, best = (folder / "checkpoints" / f"{which}.ckpt" for which in ("last", "best"))
    was_begun = last.is_file() or best.is_file()
    found, older = _read_or_set_aside(last), _read_or_set_aside(best)
    if found is None and older is not None:
        log.warning(f"going on from {shown(best)}, epoch {older['epoch']}")
        part = last.with_suffix(".part")
        shutil.copyfile(best, part)
        os.replace(part, last)
        found = older
    if found is not None and older is None and _best_epoch(found) not in (None, found["epoch"]):
        _set_aside(last, "the best epoch is lost")
        found = None
    if found is None:
        if was_begun:
            log.warning("the run begins anew")
        return
    _check_network(task.state_dict(), found["state_dict"], last)
    table = folder / "metrics.csv"
    rows = read_rows(table)
    if table.is_file() and (not rows or int(rows[-1]["epoch"]) < found["epoch"]):
        raise damaged(table, f"has no row of epoch {found['epoch']}, which {shown(last)} is of")


def _read_or_set_aside(path: Path) -> dict[str, Any] | None:
    """A checkpoint that a fit can go on from; None where there is none, or none any more."""
    if not path.is_file():
        return None
    try:
        found = read(path, mmap=True)
        if not found.keys() >= RESUMABLE or "Record" not in found["callbacks"]:
            raise _no_checkpoint(path, "it is of another program")
    except DamagedError as error:
        _set_aside(path, str(error))
        return None
    return found


def _best_epoch(checkpoint: dict[str, Any]) -> int | None:
    best = checkpoint["callbacks"]["Record"]["best"]
    return best and best["epoch"]


def _set_aside(path: Path, reason: str) -> None:
    aside = path.with_name(f"{path.name}.aside")
    os.replace(path, aside)
    log.warning(f"{reason}; set aside as {shown(aside)}")


def _check_network(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    """Raises ConfigError where weights are not those that a network expects."""
    differences = [f"{key} is missing" for key in expected.keys() - found.keys()]
    differences += [f"{key} is not in this network" for key in found.keys() - expected.keys()]
    differences += [
        f"{key} is {tuple(found[key].shape)} there, {tuple(expected[key].shape)} here"
        for key in expected.keys() & found.keys()
        if found[key].shape != expected[key].shape
    ]
    if differences:
        lines = [f"  {line}" for line in sorted(differences)[:5]]
        more = [f"  and {len(differences) - 5} more"] if len(differences) > 5 else []
        raise ConfigError("\n".join([f"{path} belongs to another network:", *lines, *more]))


def _changed_record(archive: Path) -> str | None:
    """A record that differs from its checksum, or is called a folder, which torch would not read; None for none."""
    with zipfile.ZipFile(archive) as records:
        folders = (record.filename for record in records.infolist() if record.external_attr & DOS_FOLDER)
        return next(folders, None) or records.testzip()


def _are_tensors(weights: Any) -> bool:
    return isinstance(weights, dict) and all(isinstance(value, Tensor) for value in weights.values())


def _no_checkpoint(path: Path, reason: str) -> DamagedError:
    return DamagedError(f"{shown(path)} is no checkpoint of normlab: {reason}")
