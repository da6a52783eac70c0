"""export.json: what somebody needs to use an exported file who has never seen normlab."""

import hashlib
import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor

from normlab.data.common.base import DataModule
from normlab.data.common.targets import target_columns
from normlab.folder.place import shown
from normlab.folder.writing import write_text
from normlab.runner import exports
from normlab.runner.exports.common.wanted import Wanted

NAME = "export.json"
PACKAGES = ("normlab", "torch", "numpy")


def facts(
    wanted: Wanted, task: Any, data: Any, samples: Tensor, runs: bool, figures: dict[str, float]
) -> dict[str, Any]:
    """What export.json says of a file. samples: raw ones. runs: whether the file is a network, or weights alone."""
    ours = isinstance(data, DataModule)
    shape, dtype = ["batch", *samples.shape[1:]], str(samples.dtype).removeprefix("torch.")
    said = data.raw_facts() if ours else {"samples": "as the data module gives them"}
    packages = (*PACKAGES, *exports.module(wanted.format).NEEDS)
    return {
        "format": wanted.format,
        "int8": wanted.int8,
        "network": type(task.network).__name__,
        "checkpoint": {"file": str(shown(wanted.checkpoint)), "sha256": checksum(wanted.checkpoint)},
        "input": {"name": "input", "dtype": dtype, "shape": shape, **said},
        "preprocessing": {"inside": runs, **(data.entry_facts() if ours else {})},
        "output": _output(data),
        "figures": figures,
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}},
    }


def _output(data: Any) -> dict[str, Any]:
    columns = target_columns(data)
    told: dict[str, Any] = {"name": "output", "shape": ["batch", data.out_features]}
    if data.task == "regress":
        return told | {"meaning": "a number for each column", "columns": [column.name for column in columns]}
    if data.task == "classify":
        names = [str(name) for name in columns[0].classes]
        return told | {"meaning": "the probability of each class", "class_names": names}
    pairs = [{"name": column.name, "class": str(column.classes[1])} for column in columns]
    return told | {"meaning": "for each column the probability of this class", "columns": pairs}


def write_facts(folder: Path, file: str, told: dict[str, Any]) -> None:
    """Puts the facts of a file beside those of others in the folder, as far as these are still there."""
    path = folder / NAME
    known = json.loads(path.read_text()) if path.is_file() else {}
    kept = {name: each for name, each in known.items() if (folder / name).is_file()}
    write_text(path, json.dumps(kept | {file: told}, indent=2) + "\n")


def checksum(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
