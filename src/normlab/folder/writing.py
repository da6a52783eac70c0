"""Writes the files of a run folder, each whole or not at all."""

import json
import math
import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from normlab.folder.files import HEADER, load_config

# The beginning of config.yaml, by which `python train.py -cp <folder> -cn config name=<new>` replays the run.
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


def write_config(path: Path, config: DictConfig) -> None:
    body = OmegaConf.to_yaml(config, resolve=True)
    write_text(path / "config.yaml", REPLAY.format(path=path.absolute(), name=path.name) + body)


def has_own_header(path: Path) -> bool:
    """Whether a run's config.yaml tells Hydra just what normlab wrote there, so that a replay does nothing else."""
    written: Any = OmegaConf.to_container(OmegaConf.create(REPLAY.format(path="", name="")))
    config: Any = OmegaConf.to_container(load_config(path / "config.yaml"))
    same = all(config.get(key) == written[key] for key in HEADER)
    return same and not (path / "hydra").exists()  # Hydra would look for its own options there first


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Replaces result.json in one step; NaN and infinities become null, which every JSON reader takes."""
    write_text(path / "result.json", json.dumps(_finite(result), indent=2) + "\n")


def write_text(file: Path, text: str) -> None:
    """Writes a file whole or not at all; bytes of file names that are no UTF-8 are written as escapes."""
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
