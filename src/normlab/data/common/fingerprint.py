"""What the training part of a data set is told by, so that a run that goes on notices where it changed.

Nothing is told by samples that were resized, scaled or standardised: their last digits differ between processors.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from normlab.data.common.targets import target_columns

MOST_FILES = 20_000  # the files of a larger set are told by their folders

Fingerprint = dict[str, Any]  # plain values, which JSON takes; `folder.same_data` compares two of them


def digest(*parts: bytes | np.ndarray | Tensor) -> str:
    """Twelve hex digits that tell bytes, or arrays of numbers with their types and shapes, from others."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, bytes):
            total.update(part)
            continue
        total.update(f"{part.dtype} {tuple(part.shape)} ".encode())
        if isinstance(part, Tensor):  # some of torch's types are none of NumPy's
            part = part.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        total.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    return total.hexdigest()[:12]


def of_training(data: Any, y: Tensor, places: Tensor) -> Fingerprint:
    """What a data module's training part is told by, but for the values of its samples.

    y: the targets of all samples that it is cut from. places: those that are in it.
    """
    columns, training = target_columns(data), y[places]
    classes = [f"{column.name} {name}".strip() for column in columns for name in column.classes]
    values = training.reshape(len(training), -1).T
    return {
        "samples": len(places),
        "cut_from": len(y),
        "split": digest(places),
        "classes": classes,
        "targets": {column.name: digest(of_column) for column, of_column in zip(columns, values, strict=True)},
        "all_targets": digest(y),
    }


def of_columns(columns: Iterable[tuple[str, np.ndarray | Tensor]]) -> Fingerprint:
    """What a table is told by. columns: the names and values."""
    return {"columns": {name: digest(values) for name, values in columns}}


def of_files(names: Sequence[str], digests: Sequence[str], places: Tensor) -> Fingerprint:
    """What files are told by: their names, and in the training part their contents.

    digests: of the contents. places: those in the training part.
    """
    training = {*places.tolist()}
    contents = {name: digests[place] if place in training else "" for place, name in enumerate(names)}
    return {"files": contents} if len(names) <= MOST_FILES else {"folders": _by_folder(contents)}


def _by_folder(contents: Mapping[str, str]) -> dict[str, str]:
    folders: dict[str, list[str]] = {}
    for name, content in contents.items():
        folders.setdefault(f"{PurePath(name).parent}", []).append(f"{name}\0{content}")
    return {
        folder: digest("\n".join(sorted(files)).encode("utf-8", "surrogateescape")) for folder, files in folders.items()
    }
