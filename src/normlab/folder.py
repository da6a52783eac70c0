"""The run folder: where it lies, what it holds, and whether a command may use it.

config.yaml  data.json  metrics.csv  result.json  environment.json  train.log  checkpoints/{best,last}.ckpt
"""

import json
import math
import os
import platform
import re
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from normlab import joined
from normlab.errors import ConfigError
from normlab.fields import show
from normlab.files import (
    HEADER,
    check_files,
    holds_run,
    load_config,
    read_config,
    read_environment,
    read_result,
    shown,
)
from normlab.identity import LENGTH, config_hash, numbers

ROOT = Path("outputs")
PACKAGES = ("normlab", "torch", "lightning", "torchmetrics", "torchvision", "hydra-core", "omegaconf", "numpy")

LONGEST = 255  # bytes of a folder's name, on the file systems in use

# What a run that was refused, or not started yet, leaves; the next one may take its place.
UNTRAINED = {"lr_find", "stats", "result.json", "train.log", ".lock", "checkpoints", "trial.json"}

# Lets `python train.py -cp <folder> -cn config name=<new>` replay a run.
REPLAY = """\
# Replay: python train.py --config-path {path} --config-name config name={name}-replay
defaults:
  - _self_
  - override hydra/job_logging: none
hydra:
  run:
    dir: ${{normlab.folder:${{name}},${{action}},${{ckpt}}}}
  output_subdir: null
"""


def resolve(name: object, action: str = "fit", ckpt: str | None = None) -> Path:
    """The run folder: `outputs/<name>`, that of the checkpoint looked at, or else a new one.

    Under SLURM the new one is called as the job, in all its processes. Raises ConfigError for a name that is no path
    under `outputs`, for an action that is told no run, and under torchrun without a name.
    """
    if name is not None:
        if not re.fullmatch(r"[\w.+-]+(/[\w.+-]+)*", str(name)) or ".." in str(name).split("/"):
            raise ConfigError(f"name={name}: expected letters, digits and . _ - + with / between folders")
        return ROOT / str(name)
    if ckpt not in (None, "best", "last"):
        return Path(ckpt).parent.parent
    if action in ("fit", "sweep", "lr_find", "stats"):
        if (given := joined.run_name()) is not None:
            return ROOT / given
        now = datetime.now()
        return ROOT / now.strftime("%Y-%m-%d") / f"{now:%H-%M-%S}-{uuid.uuid4().hex[:6]}"
    raise ConfigError(f"action={action} needs a run: name=<run>, or ckpt=<run folder>/checkpoints/best.ckpt")


def check_fit(path: Path, config: DictConfig, data_follows: bool = False) -> None:
    """Raises ConfigError where `path` holds something else than an earlier part of this run, or a damaged file.

    data_follows: whether data may still be given from Python in place of the configured one.
    """
    check_files(path)
    entries = {entry.name for entry in path.iterdir() if entry.suffix != ".part"} if path.exists() else set()
    if entries <= UNTRAINED:
        return
    if not holds_run(path):
        raise ConfigError(f"{shown(path)} exists and holds no run; choose another name=")
    if not has_trained(path):
        return
    found, wanted = numbers(read_config(path)), numbers(config)
    if data_follows:
        found, wanted = ({k: v for k, v in all_.items() if not k.startswith("data.")} for all_ in (found, wanted))
    lines = differences(found, wanted)
    fewer = isinstance(found[LENGTH], int) and found[LENGTH] < wanted[LENGTH]
    longer = fewer and not differences(found | {LENGTH: wanted[LENGTH]}, wanted)
    if lines and not (longer and config.extend):
        remedy = "extend=true trains on" if longer else "to train this one, choose another name="
        raise ConfigError("\n".join([f"{shown(path)} holds another run; {remedy}", *lines]))


def has_trained(path: Path) -> bool:
    """Whether the run in a folder has ended an epoch; what has not may be replaced by another run."""
    table = path / "metrics.csv"
    rows = len(table.read_text().splitlines()) if table.is_file() else 0
    return rows > 1 or any((path / "checkpoints").glob("*.ckpt"))


def clear_untrained(path: Path, config: DictConfig) -> None:
    """Removes what another run has left in `path` that never ended an epoch, but for its logs."""
    if not (path / "config.yaml").is_file() or has_trained(path) or numbers(read_config(path)) == numbers(config):
        return
    for name in ("config.yaml", "data.json", "table.json", "environment.json", "metrics.csv", "result.json"):
        (path / name).unlink(missing_ok=True)


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """The keys that differ, a line each, as a refusal shows them."""
    differing = [key for key in sorted(found | wanted) if found.get(key) != wanted.get(key)]
    return [f"  {key}: {show(found.get(key))} there, {show(wanted.get(key))} here" for key in differing]


def finished(path: Path, config: DictConfig) -> dict[str, Any] | None:
    """The result of a fit that has finished in `path` with this configuration; None where there is something to do.

    A search's pruned run has too, unless `extend` is to train it to its end.
    """
    result = read_result(path)
    over = ("finished",) if config.extend else ("finished", "pruned")
    return result if result.get("status") in over and result["config_hash"] == config_hash(config) else None


def tell_finished(path: Path, result: dict[str, Any]) -> None:
    """Says that a finished run is left alone; of several processes the first one says it."""
    if not joined.is_first():
        return
    score = "" if result["score"] is None else f": {result['score_name']} {result['score']:.4g}"
    if share := result.get("majority", {}).get("val"):
        score += f" (always one class: acc {share:.4g})"
    if result["status"] == "pruned":
        print(f"{shown(path)} was pruned after {result['epochs']} epochs{score}. To train it to its end: extend=true")
    else:
        print(f"{shown(path)} is finished{score}. To train on: extend=true with more trainer.max_epochs")


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Keeps other processes out of a folder. Raises ConfigError where one is in it."""
    own = FileLock(path / ".lock")
    try:
        with own.acquire(timeout=0):
            yield
    except Timeout as error:
        raise ConfigError(
            f"another process is writing to {shown(path)}; wait for it, or choose another name="
        ) from error


def check_place(path: Path) -> None:
    """Raises ConfigError where a folder cannot be made or written in."""
    if any(len(os.fsencode(part)) > LONGEST for part in path.parts):
        raise ConfigError(f"{str(path)[:40]}… is too long: a folder's name has at most {LONGEST} bytes")
    there = next(place for place in (path, *path.parents) if os.path.lexists(place) or place == place.parent)
    if not there.is_dir():
        raise ConfigError(f"{shown(path)} cannot be made: {shown(there)} is no folder; choose another name=")
    effective = os.access in os.supports_effective_ids
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=effective):
        raise ConfigError(f"{shown(path)} cannot be written: {shown(there)} is read-only; choose another name=")


def check_action(path: Path, action: str) -> None:
    """Raises ConfigError where `path` holds no run to look at."""
    if not holds_run(path):
        raise ConfigError(f"action={action}: there is no run in {shown(path)}")


def write_config(path: Path, config: DictConfig) -> None:
    body = OmegaConf.to_yaml(config, resolve=True)
    write_text(path / "config.yaml", REPLAY.format(path=path.absolute(), name=path.name) + body)


def has_own_header(path: Path) -> bool:
    """Whether Hydra does with a run's config.yaml what normlab has written, and nothing else."""
    written: Any = OmegaConf.to_container(OmegaConf.create(REPLAY.format(path="", name="")))
    found: Any = OmegaConf.to_container(load_config(path / "config.yaml"))
    same = all(found.get(key) == written[key] for key in HEADER)
    return same and not (path / "hydra").exists()  # where Hydra would look for its own options first


def seconds(path: Path, result: dict[str, Any]) -> float:
    """How long the earlier starts of a fit took; of one that was killed, up to the last epoch that it saved."""
    before = result.get("seconds") or 0.0
    last = path / "checkpoints" / "last.ckpt"
    if result.get("status") == "running" and last.is_file():
        before += max(0.0, last.stat().st_mtime - (path / "result.json").stat().st_mtime)
    return before


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Replaces result.json in one step; NaN and infinities become null, which every JSON reader takes."""
    write_text(path / "result.json", json.dumps(_finite(result), indent=2) + "\n")


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


def write_text(file: Path, text: str) -> None:
    """Writes a file whole or not at all; names of files in it may be no UTF-8."""
    part = file.with_name(f".{file.name}.part")
    part.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(part, file)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


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
