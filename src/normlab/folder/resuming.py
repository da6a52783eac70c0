"""Finds the newest checkpoint that a fit can go on from, whatever was damaged."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from normlab.errors import DamagedError
from normlab.folder.checkpoints import check_network, epochs_ended, no_checkpoint, read
from normlab.folder.files import damaged, whole_rows
from normlab.folder.pace import SYNCED
from normlab.folder.place import failing, shown
from normlab.folder.writing import copy_whole, remove, sync_files

log = logging.getLogger(__name__)

# A fit can go on from a checkpoint that has these keys of Lightning's.
RESUMABLE = {"epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks"}

Saved = dict[Path, dict[str, Any]]


def prepare_resuming(folder: Path, task: nn.Module) -> None:
    """Leaves the newest good checkpoint as within_epoch.ckpt, or else as last.ckpt, and the best of its run beside it.

    One process calls this, before any process reads the files. A good checkpoint is whole, and so is the best one of
    its run, which may be itself; an earlier one takes the run through the same steps again. Damaged files are set aside
    under other names. Where none is good the run begins anew. Raises ConfigError for a checkpoint of another network,
    and where metrics.csv ends before each that would be good.
    """
    place = folder / "checkpoints"
    remove(*folder.glob(".*.part"), *place.glob(".*.part"))  # what a kill has left
    within, last, best = (place / f"{which}.ckpt" for which in ("within_epoch", "last", "best"))
    files = set(place.glob("*.ckpt"))
    usual = files & {within, last, best}
    saved = _whole(usual)
    newest = _newest_good(saved, folder)
    if newest not in (within, last) and files:
        saved |= _whole(files - usual)
        newest = _newest_good(saved, folder)
    if newest is None:
        _begin_anew(saved, folder, was_begun=bool(files))
        return
    check_network(task.state_dict(), saved[newest]["state_dict"], newest)
    if newest != within:
        remove(within)  # it is older, or damaged
    if newest not in (within, last):
        log.warning(f"going on from {shown(newest)}, epoch {saved[newest]['epoch']}")
        copy_whole(newest, last)
    partner = _best_of(saved[newest], saved)
    if partner not in (None, best):
        assert partner is not None
        copy_whole(partner, best)
    if older := [file for file in files if file.name.endswith(SYNCED)]:  # a killed run has left them
        sync_files(within, last, best)
        remove(*older)


def _whole(files: Iterable[Path]) -> Saved:
    """The checkpoints that a fit can go on from; the others are set aside."""
    saved: Saved = {}
    for file in files:
        try:
            checkpoint = read(file, mmap=True)
            if not checkpoint.keys() >= RESUMABLE or "Record" not in checkpoint["callbacks"]:
                raise no_checkpoint(file, "it is of another program")
            saved[file] = checkpoint
        except DamagedError as error:
            _set_aside(file, str(error))
    return saved


def _newest_good(saved: Saved, folder: Path) -> Path | None:
    rows = _rows(folder)
    good = [
        file for file in saved if _has_best(saved[file], saved) and (rows is None or epochs_ended(saved[file]) <= rows)
    ]
    return max(good, key=lambda file: (*_place(saved[file]), file.name == "last.ckpt"), default=None)


def _rows(folder: Path) -> int | None:
    """The epochs, from the first, that metrics.csv has rows of; None where it was taken away."""
    table = folder / "metrics.csv"
    rows = whole_rows(table)
    return (int(rows[-1]["epoch"]) + 1 if rows else 0) if table.is_file() else None


def _place(checkpoint: dict[str, Any]) -> tuple[int, int]:
    return epochs_ended(checkpoint), checkpoint["global_step"]


def _has_best(checkpoint: dict[str, Any], saved: Saved) -> bool:
    return _best_epoch(checkpoint) is None or _best_of(checkpoint, saved) is not None


def _best_of(checkpoint: dict[str, Any], saved: Saved) -> Path | None:
    """The file that holds the end of a checkpoint's best epoch."""
    epoch = _best_epoch(checkpoint)
    holding = [file for file in saved if epoch is not None and epochs_ended(saved[file]) == epoch + 1]
    holding = [file for file in holding if "within_epoch" not in saved[file]]
    return max(holding, key=lambda file: file.name == "best.ckpt", default=None)


def _best_epoch(checkpoint: dict[str, Any]) -> int | None:
    best = checkpoint["callbacks"]["Record"]["best"]
    return best and best["epoch"]


def _begin_anew(saved: Saved, folder: Path, was_begun: bool) -> None:
    complete = [file for file in saved if _has_best(saved[file], saved)]
    if complete:
        newest = max(complete, key=lambda file: _place(saved[file]))
        table = folder / "metrics.csv"
        raise damaged(table, f"has no row of epoch {saved[newest]['epoch']}, which {shown(newest)} is of")
    for file in saved:
        _set_aside(file, "the best epoch is lost")
    if was_begun:
        log.warning("the run begins anew")


def _set_aside(path: Path, reason: str) -> None:
    aside = path.with_name(f"{path.name}.aside")
    with failing(path):
        os.replace(path, aside)
    log.warning(f"{reason}; set aside as {shown(aside)}")
