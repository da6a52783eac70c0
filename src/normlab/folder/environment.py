"""environment.json: the versions, git state and devices of each start; changes.diff: what was not committed."""

import json
import platform
import subprocess
from datetime import datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from normlab.folder.files import read_environment
from normlab.folder.writing import write_text

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
        "packages": _packages(),
        "git": state,
        **devices,
    }
    if state is not None and state["dirty"]:
        write_text(path / "changes.diff", _changes(Path.cwd()))
    write_text(path / "environment.json", json.dumps([*read_environment(path), entry], indent=2) + "\n")


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
