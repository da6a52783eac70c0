"""Whether a run goes on with the training data that it was begun on: fingerprint.json says what that was."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from normlab.errors import ChangedError
from normlab.folder.files import damaged, read_facts
from normlab.folder.place import shown
from normlab.folder.reuse import has_trained
from normlab.folder.writing import write_text

log = logging.getLogger(__name__)

FILE = "fingerprint.json"
LISTED = 8  # changes that a refusal names

# What a fingerprint tells one by one, and how it is called; see `data.common.fingerprint`.
KINDS = {"targets": "target", "columns": "column", "files": "file", "folders": "folder"}
OTHER = {"files": "has other bytes", "folders": "has other files, or other bytes in them"}


def check_same_data(folder: Path, fingerprint: Mapping[str, Any], accepted: bool, replayed: Path | None = None) -> None:
    """Keeps the fingerprint of a run's training data in its folder.

    accepted: whether the run may go on with other data than it was begun on. replayed: the folder of a run that this
    one repeats, whose data it is to have. Raises ChangedError, which says what changed, where it may not. A run that
    has none yet, as one that has saved nothing, gets this one.
    """
    file = folder / FILE
    begun = folder if has_trained(folder) else replayed
    if begun is not None and (begun / FILE).is_file():
        lines = changes(_read(begun / FILE), fingerprint)
        if lines and not accepted:
            anew = "" if begun == replayed else "; to begin anew, choose another name="
            raise ChangedError(
                f"the training data is not what {shown(begun)} was begun on: {listed(lines)}. To go on all the same: "
                f"data.changed=ok{anew}"
            )
        if lines:
            log.warning(f"going on with training data that changed: {listed(lines)}")
    write_text(file, json.dumps(fingerprint, indent=0) + "\n")


def data_changes(there: Path, here: Path) -> list[str]:
    """How the training data of one run folder differs from that of another, as far as both tell it.

    Raises DamagedError.
    """
    if not all((folder / FILE).is_file() for folder in (there, here)):
        return []
    return [f"the data: {line}" for line in changes(_read(there / FILE), _read(here / FILE))]


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What changed from one fingerprint to another, a text each; empty where the training part is the same."""
    lines = [*_counts(before, now), *_classes(before, now)]
    same_split = before.get("split") == now.get("split")
    kinds = KINDS if same_split else {kind: name for kind, name in KINDS.items() if kind != "targets"}
    for kind, name in kinds.items():
        lines += _parts(before.get(kind, {}), now.get(kind, {}), name, OTHER.get(kind, "has other values"), same_split)
    if same_split and before.get("values") != now.get("values"):
        lines.append("the samples have other values")
    if not same_split and before.get("cut_from") == now.get("cut_from"):
        same_targets = before.get("all_targets") == now.get("all_targets")
        lines.append("other samples are in the training part" if same_targets else "the target has other values")
    return lines


def listed(lines: list[str]) -> str:
    """Changes in one line, the first of many."""
    more = f", and {len(lines) - LISTED} more" if len(lines) > LISTED else ""
    return ", ".join(lines[:LISTED]) + more


def _read(file: Path) -> dict[str, Any]:
    facts = read_facts(file)
    whole = all(isinstance(facts.get(kind, {}), dict) for kind in KINDS) and isinstance(facts.get("classes"), list)
    if not whole or not all(isinstance(name, str) for name in facts["classes"]):
        raise damaged(file)
    return facts


def _counts(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if before.get("cut_from") != now.get("cut_from"):
        yield f"number of samples {before.get('cut_from')} → {now.get('cut_from')}"
    elif before.get("samples") != now.get("samples"):
        yield f"number of training samples {before.get('samples')} → {now.get('samples')}"
    if before.get("shape") != now.get("shape"):
        yield f"shape of a sample {before.get('shape')} → {now.get('shape')}"


def _classes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    old, new = before.get("classes", []), now.get("classes", [])
    yield from (f"class {name} is gone" for name in old if name not in new)
    yield from (f"class {name} is new" for name in new if name not in old)
    if old != new and sorted(old) == sorted(new):
        yield "the classes are in another order"


def _parts(before: Mapping[str, str], now: Mapping[str, str], kind: str, other: str, same_split: bool) -> Iterator[str]:
    """The parts of a kind that are gone or new, and those with other contents, as far as the split lets these be
    compared: files outside the training part have an empty one."""
    single = kind == "file"
    for name in {**before, **now}:
        called = f"{kind} {name}".strip() if name else f"the {kind}"
        if name not in now:
            yield f"{called} is gone"
        elif name not in before:
            yield f"{called} is new"
        elif before[name] != now[name] and (same_split or (single and before[name] and now[name])):
            yield f"{called} {other}"
