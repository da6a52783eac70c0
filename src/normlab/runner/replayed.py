"""Whether the numbers of a replay are those of the run that it repeats, and what differs where they are not."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import Tensor

from normlab.errors import DamagedError
from normlab.folder import environment
from normlab.folder.checkpoints import read
from normlab.folder.files import damaged, read_config, read_result, read_rows
from normlab.folder.identity import numbers
from normlab.folder.place import shown
from normlab.folder.reuse import differences
from normlab.folder.same_data import data_changes

log = logging.getLogger(__name__)

TOLD = 8  # differences of the surroundings that are logged; result.json has all


@dataclass(frozen=True)
class Difference:
    """A number that is another in two runs. size: the absolute difference; inf where one of them has no number."""

    where: str
    there: Any
    here: Any

    @property
    def size(self) -> float:
        try:
            size = abs(float(self.there) - float(self.here))
        except (TypeError, ValueError):
            return math.inf
        return math.inf if math.isnan(size) else size

    def __str__(self) -> str:
        return f"{self.where}: {_shown(self.there)} there, {_shown(self.here)} here"


def compare(there: Path, here: Path, result: dict[str, Any], config: DictConfig) -> dict[str, Any]:
    """Compares a run that has just ended in `here` with the one in `there` that it repeats, and says what came out.

    result: what result.json will hold of the score and metrics. Returns the entry `replay` of result.json: the folder
    `of` the other run; whether all numbers are the `same`, null where that could not be seen; the `differences` of
    numbers, and of the `environment` and the data.
    """
    try:
        found = [*_of_result(_result(there), result), *_of_rows(there, here)]
        weights = _of_weights(there, here)
        around = [*_of_config(there, config), *data_changes(there, here), *environment.changes(there, here)]
    except (DamagedError, OSError) as error:
        log.warning(f"{shown(there)} can no longer be compared with: {error}")
        return {"of": str(there), "same": None, "differences": [str(error)], "environment": []}
    found += weights or []
    _tell(there, found, weights is not None, around)
    return {"of": str(there), "same": not found, "differences": [*map(str, found)], "environment": around}


def _result(folder: Path) -> dict[str, Any]:
    result = read_result(folder)
    if not result:
        raise damaged(folder / "result.json", "is gone")
    return result


def _of_result(there: dict[str, Any], here: dict[str, Any]) -> Iterator[Difference]:
    one, other = ({f"score, {each['score_name']}": each["score"], **each["metrics"]} for each in (there, here))
    yield from (difference for _, difference in _unequal(one, other))


def _of_rows(there: Path, here: Path) -> Iterator[Difference]:
    """The numbers of rows of metrics.csv, where they differ, and of each column that differs its largest difference."""
    old, new = (read_rows(folder / "metrics.csv") for folder in (there, here))
    if len(old) != len(new):
        yield Difference("rows of metrics.csv", len(old), len(new))
    columns: dict[str, list[Difference]] = {}
    for one, other in zip(old, new, strict=False):
        for name, difference in _unequal(one, other, f" of epoch {one['epoch']}"):
            columns.setdefault(name, []).append(difference)
    yield from (max(each, key=lambda difference: difference.size) for each in columns.values())


def _unequal(there: dict[str, Any], here: dict[str, Any], end: str = "") -> Iterator[tuple[str, Difference]]:
    """The names whose values differ, with the difference. end: what is said after the name."""
    for name in {**there, **here}:
        one, other = there.get(name), here.get(name)
        if one != other and not (_is_missing(one) and _is_missing(other)):
            yield name, Difference(f"{name}{end}", one, other)


def _of_weights(there: Path, here: Path) -> list[Difference] | None:
    """The tensors of the best checkpoints that differ, each by its largest difference; None where one has none."""
    files = [folder / "checkpoints" / "best.ckpt" for folder in (there, here)]
    if not all(file.is_file() for file in files):
        return None
    old, new = (read(file, mmap=True)["state_dict"] for file in files)
    found = []
    for name in {**old, **new}:
        one, other = old.get(name), new.get(name)
        if one is None or other is None or _kind(one) != _kind(other):
            found.append(Difference(f"{name} of best.ckpt", _kind(one), _kind(other)))
        elif not one.equal(other):
            place = (one.double() - other.double()).abs().argmax()
            found.append(Difference(f"{name} of best.ckpt", one.flatten()[place].item(), other.flatten()[place].item()))
    return found


def _kind(tensor: Tensor | None) -> str:
    return "none" if tensor is None else f"{tuple(tensor.shape)} {tensor.dtype}"


def _of_config(there: Path, config: DictConfig) -> list[str]:
    """What was typed beside the replay, and what a replay of a run does otherwise than the run did."""
    saved = read_config(there)
    lines = [line.strip() for line in differences(numbers(saved), numbers(config))]
    accelerators = saved.trainer.get("accelerator"), config.trainer.get("accelerator")
    if accelerators[0] != accelerators[1]:
        lines.append(f"trainer.accelerator: {accelerators[0]} there, {accelerators[1]} here")
    if saved.extend:
        lines.append("it was trained on with extend=true, and a replay trains all epochs in one")
    return lines


def _tell(there: Path, found: list[Difference], has_weights: bool, around: list[str]) -> None:
    if not found:
        end = ", best.ckpt" if has_weights else "; one of the two has kept no best.ckpt to compare"
        log.info(f"replay: the same numbers as {shown(there)}, bit for bit: score, metrics, metrics.csv{end}")
        return
    largest = max(found, key=lambda difference: difference.size)
    log.warning(f"replay: the numbers are not those of {shown(there)}; the largest difference is {largest}")
    if around:
        more = f", and {len(around) - TOLD} more in result.json" if len(around) > TOLD else ""
        log.warning(f"replay: what else differs from {shown(there)}: {'; '.join(around[:TOLD])}{more}")
    else:
        log.warning(
            "replay: versions, commit, devices, processor, threads and data are the same. On a GPU, sums differ a "
            "little each time without trainer.deterministic=true"
        )


def _is_missing(value: Any) -> bool:
    """Whether a value is no finite number, which result.json writes as null and metrics.csv as nan or nothing."""
    try:
        return not math.isfinite(float(value))
    except (TypeError, ValueError):
        return True


def _shown(value: Any) -> str:
    if _is_missing(value):
        return "none" if value in (None, "") else str(value)
    return f"{float(value):.6g}"
