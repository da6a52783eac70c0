"""The content of `conf/`: its groups and options, and the file from which a part of a configuration comes."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

import normlab.conf  # pyright: ignore[reportMissingImports]  # conf/, mapped by pyproject.toml

CONF = Path(normlab.conf.__path__[0])
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name not in ("__pycache__", "hydra"))
SEVERAL = ("callbacks", "logger")  # these groups may hold several parts, each under a name
GLOBAL = ("experiment", "sweep", "local")  # groups whose files set keys of all the others


def options(group: str) -> list[str]:
    """The options of a group, as `ls conf/<group>` lists them."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def read_option(group: str, option: str) -> Any:
    """The yaml file of an option as it stands, without what it includes."""
    return OmegaConf.load(CONF / group / f"{option}.yaml")


@cache
def run_keys() -> dict[str, Any]:
    """The run's own keys with their defaults, as train.yaml has them; those of `task` are a dictionary."""
    return {key: value for key, value in _train_yaml().items() if key not in ("defaults", "hydra", "fair")}


def fair_keys() -> dict[str, Any]:
    """The keys of `sweep=fair` with their defaults, without the word fair before them."""
    return _train_yaml()["fair"]


@cache
def _train_yaml() -> dict[str, Any]:
    keys = OmegaConf.to_container(OmegaConf.load(CONF / "train.yaml"))
    assert isinstance(keys, dict)
    return {str(key): value for key, value in keys.items()}


@cache
def origins(folder: str, target: str) -> tuple[str, ...]:
    """The files of `conf/<folder>` whose part is the class `target`, and those that they include: `data/common/images`.

    Empty for a class that is not one of them, such as a person's own.
    """
    line = re.compile(rf"^\s*_target_: *{re.escape(target)} *(#.*)?$", re.M)
    files: list[str] = []
    for path in sorted((CONF / folder).glob("*.yaml")):
        text = path.read_text()
        if line.search(text):
            files += [f"{folder}/{path.stem}", *(f"{folder}/{name}" for name in re.findall(r"([\w/]+)@_here_", text))]
    return tuple(dict.fromkeys(files))
