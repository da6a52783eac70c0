"""environment.json: the versions, git state and devices of each start; changes.diff: what was not committed."""

import json
import platform
import subprocess
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from normlab.folder.files import read_environment
from normlab.folder.writing import write_text

# Packages whose versions come first where two environments are compared, since numbers depend on them most.
FIRST = ("torch", "lightning", "numpy", "torchvision", "torchmetrics", "scikit-learn", "pandas")
DEVICES = ("device", "processes", "gpus", "threads", "processor", "instructions", "matmul_precision", "platform")

PATIENCE = 10.0  # seconds that git may take
LONGEST = 1 << 20  # bytes of changes.diff


def write_environment(path: Path, devices: dict[str, Any]) -> None:
    """Versions, git state and devices of a run; a resumed run has one entry for each start.

    Where files that git knows differ from the commit, changes.diff is their difference at the latest start.
    """
    state = _git_state(Path.cwd())
    entry = {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "packages": _packages(),
        "git": state,
        **devices,
    }
    if state is not None and state["dirty"]:
        write_text(path / "changes.diff", _changes(Path.cwd()))
    write_text(path / "environment.json", json.dumps([*read_environment(path), entry], indent=2) + "\n")


def changes(there: Path, here: Path) -> list[str]:
    """How the environment of the latest start in `here` differs from each start in `there`, a text each.

    Raises DamagedError.
    """
    starts, (*_, now) = read_environment(there), read_environment(here)
    lines = [line for start in starts for line in _differences(start, now)]
    if any(_is_dirty(start) for start in (*starts, now)) and _text(there) != _text(here):
        lines.insert(0, "what was not committed: see changes.diff there and here")
    return [*dict.fromkeys(lines)]


def _differences(there: dict[str, Any], here: dict[str, Any]) -> Iterator[str]:
    old, new = (start["packages"] if isinstance(start.get("packages"), dict) else {} for start in (there, here))
    differing = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    order = [*(name for name in FIRST if name in differing), *(name for name in differing if name not in FIRST)]
    pairs = [(name, old.get(name, "not installed"), new.get(name, "not installed")) for name in order]
    first = sum(name in FIRST for name in order)
    states = [start["git"] if isinstance(start.get("git"), dict) else {} for start in (there, here)]
    commits = ("git commit", *(str(state.get("commit"))[:12] for state in states))
    devices = [(key, there.get(key), here.get(key)) for key in DEVICES]
    for name, one, other in (*pairs[:first], commits, ("python", there.get("python"), here.get("python")), *devices):
        if one != other:
            yield f"{name} {one} there, {other} here"
    yield from (f"{name} {one} there, {other} here" for name, one, other in pairs[first:])


def _is_dirty(start: dict[str, Any]) -> bool:
    return isinstance(start.get("git"), dict) and bool(start["git"].get("dirty"))


def _text(folder: Path) -> str:
    file = folder / "changes.diff"
    return file.read_text(errors="replace") if file.is_file() else ""


def _processor() -> str:
    """The name of the processor, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


@cache
def _packages() -> dict[str, str]:
    """The versions of all that is installed."""
    return dict(sorted((installed.name, installed.version) for installed in metadata.distributions()))


@cache
def _git_state(path: Path) -> dict[str, Any] | None:
    """Commit and dirty flag of a directory when this process first asked; None outside a repository."""
    answer = _git(path, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    if answer is None:
        return None
    lines = answer.splitlines()
    commit = next((line.split()[2] for line in lines if line.startswith("# branch.oid")), None)
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}


@cache
def _changes(path: Path) -> str:
    """How the files that git knows differ from the commit; cut after `LONGEST`, with a last line that says so."""
    changes = _git(path, "diff", "HEAD", "--no-color", "--no-ext-diff") or ""
    if len(changes) <= LONGEST:
        return changes
    return f"{changes[:LONGEST]}\n… cut after {LONGEST} of {len(changes)} characters\n"


def _git(path: Path, *arguments: str) -> str | None:
    """What git answers in a directory; None where it is no repository, or git is not there."""
    settings: dict[str, Any] = {"capture_output": True, "text": True, "errors": "replace", "timeout": PATIENCE}
    try:
        return subprocess.run(["git", *arguments], cwd=path, check=True, **settings).stdout
    except (OSError, subprocess.SubprocessError):
        return None
