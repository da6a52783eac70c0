"""environment.json: the versions, git state and devices of each start of a run."""

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

PACKAGES = ("normlab", "torch", "lightning", "torchmetrics", "torchvision", "hydra-core", "omegaconf", "numpy")


def write_environment(path: Path, devices: dict[str, Any]) -> None:
    """Versions, git state and devices of a run; a resumed run has one entry for each start."""
    entry = {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "git": _git_state(Path.cwd()),
        **devices,
    }
    write_text(path / "environment.json", json.dumps([*read_environment(path), entry], indent=2) + "\n")


@cache
def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


@cache
def _git_state(path: Path) -> dict[str, Any] | None:
    """Commit and dirty flag of a directory when this process first asked; None outside a repository."""
    try:
        command = ["git", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
        lines = subprocess.run(
            command, cwd=path, capture_output=True, text=True, check=True, timeout=10
        ).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    commit = next((line.split()[2] for line in lines if line.startswith("# branch.oid")), None)
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}
