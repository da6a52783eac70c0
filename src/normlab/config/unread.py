"""Keys of a configuration that nobody reads, wherever they came from: typed, an experiment, conf/local, Python."""

import ast
import importlib.metadata
import importlib.util
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from normlab.config.options import GLOBAL, GROUPS, SEVERAL, read_option, run_keys
from normlab.errors import ConfigError, did_you_mean
from normlab.folder.files import OUR_TRAINER_KEYS

# Groups of one part each, whose constructor decides about its keys.
PARTS = ("model", "norm", "data", "loss", "optimizer", "scheduler", "trainer")


def check_read(config: DictConfig) -> None:
    """Raises ConfigError for a key that nobody reads, naming the nearest, and for a part that is none."""
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    known = {*run_keys(), *(group for group in GROUPS if group not in GLOBAL)}
    for key in plain:
        if key in GLOBAL and key not in known:
            raise ConfigError(f"a file of conf/{key} sets keys of {key}: its first line has to be # @package _global_")
        _check(key, "", known)
    for key in plain.get("task") or {}:
        _check(key, "task", run_keys()["task"])
    for group in PARTS:
        _check_part(plain.get(group), group)
    for group in SEVERAL:
        if group not in plain:
            raise ConfigError(f"{group} is missing: choose {group}=none")
        for name, part in (plain.get(group) or {}).items():
            _check_part(part, f"{group}.{name}")
    if missing := missing_keys(config):
        raise ConfigError(f"normlab reads {missing[0]}, so it cannot be left out")
    for key in plain["trainer"].keys() - _own_trainer_keys():
        check_trainer_key(str(key))


@cache
def _own_trainer_keys() -> frozenset[str]:
    return frozenset(map(str, read_option("trainer", "auto")))


def missing_keys(config: DictConfig) -> list[str]:
    """The keys that normlab reads of every configuration, and that this one lacks."""
    of_trainer = [f"trainer.{key}" for key in OUR_TRAINER_KEYS if key not in config.trainer]
    of_task = [f"task.{key}" for key in run_keys()["task"] if key not in (config.get("task") or {})]
    return [*of_trainer, *(key for key in run_keys() if key not in config), *of_task]


def check_trainer_key(name: str) -> None:
    """Raises ConfigError for a key under `trainer` that neither Lightning's Trainer nor normlab reads."""
    if name in DECIDED_HERE:
        raise ConfigError(f"trainer.{name} is normlab's own; {DECIDED_HERE[name]}")
    if name not in trainer_parameters():
        raise ConfigError(f"Lightning's Trainer has no parameter {name}{did_you_mean(name, trainer_parameters())}")


def _check_part(part: Any, key: str) -> None:
    if not isinstance(part, dict) or not isinstance(part.get("_target_"), str):
        raise ConfigError(f"{key}: expected a part, which has _target_, the path of its class; found {part}")
    for name in part:
        if str(name).startswith("_"):  # Hydra has more of them than parts may have
            _check(name, key, ("_target_", "_partial_"))


def _check(key: Any, where: str, known: Iterable[str]) -> None:
    if key not in known:
        nearest = did_you_mean(str(key), known)
        listed = "" if nearest else f" (keys: {', '.join(sorted(known))})"
        raise ConfigError(f"no key {key}{f' in {where}' if where else ''}{nearest}{listed}")


# What of Lightning's Trainer normlab decides itself, and where a person says it instead.
DECIDED_HERE = {
    "callbacks": "choose callbacks=",
    "logger": "choose logger=",
    "default_root_dir": "set name=",
    "enable_progress_bar": "the bar is always there",
    "enable_model_summary": "choose callbacks=model_summary",
    "enable_checkpointing": "best and last are always kept",
    "fast_dev_run": "choose trainer=debug",
    "barebones": "set steps_per_execution= for speed",
    "plugins": "set trainer.precision and trainer.sync_batchnorm",
    "use_distributed_sampler": "each process always has samples of its own",
}


@cache
def trainer_parameters() -> tuple[str, ...]:
    """The parameters of Lightning's Trainer, read from its source: importing it would take seconds."""
    spec = importlib.util.find_spec("lightning")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    source = Path(spec.submodule_search_locations[0], "pytorch", "trainer", "trainer.py").read_text()
    trainer = next(n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == "Trainer")
    init = next(n for n in trainer.body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
    return tuple(argument.arg for argument in init.args.kwonlyargs)
