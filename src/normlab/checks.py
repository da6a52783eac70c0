"""What can be known of a configuration without torch: names, and settings that do not go together."""

import ast
import difflib
import importlib.metadata
import importlib.util
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from packaging.requirements import Requirement

from normlab.errors import ConfigError
from normlab.fields import show
from normlab.options import origins

# What acts on each single step, with the value that turns it off.
SINGLE_STEP_ONLY = {"gradient_clip_val": None, "accumulate_grad_batches": 1}

NEED_A_RUN = ("validate", "test", "predict")  # actions that look at a trained network

UNCHOSEN = ("acc", "f1", "mse", "mae", "r2")  # what the tasks measure where task.metrics is null

# What of Lightning's Trainer normlab decides itself, and where a person says it instead.
OWN_TRAINER_KEYS = {
    "callbacks": "choose callbacks=",
    "logger": "choose logger=",
    "default_root_dir": "set name=",
    "enable_progress_bar": "the bar is always there",
    "enable_model_summary": "choose callbacks=model_summary",
    "enable_checkpointing": "best and last are always kept",
    "fast_dev_run": "choose trainer=debug",
    "barebones": "set steps_per_execution= for speed",
    "plugins": "set trainer.precision and trainer.sync_batchnorm",
    "use_distributed_sampler": "each process always has a part of its own",
}


def check_option(group: str, chosen: Any, available: Sequence[str]) -> None:
    """Raises ConfigError where a chosen option, or one of a list of options, is not there or lacks its extra."""
    for option in map(show, chosen if isinstance(chosen, list) else [chosen]):
        if option not in available:
            listed = ", ".join(sorted(available)) or "none yet"
            raise ConfigError(f"no option {option} in {group}{did_you_mean(option, available)} (options: {listed})")
        check_extra(f"{group}={option}", option)


def check_extra(typed: str, extra: str) -> None:
    """Raises ConfigError where what was typed needs an extra, if there is one of that name, that is not installed."""
    for requirement in _requirements():
        if _is_of_extra(requirement, extra) and not _installed(requirement.name):
            raise ConfigError(f"{typed} needs {requirement.name}, which is not installed: pip install -e '.[{extra}]'")


def check_name(config: DictConfig, key: str, added: bool) -> None:
    """Raises ConfigError where `key` is not a key of the composed configuration, naming the nearest."""
    path, _, name = key.rpartition(".")
    node = OmegaConf.select(config, path) if path else config
    if node is None or not OmegaConf.is_dict(node):
        check_name(config, path, added=False)
        raise ConfigError(f"no key {name} in {path}, which is a single value")
    if name in node.keys():  # noqa: SIM118  # a key whose value is ??? is not in the node
        return
    where = f" in {path}" if path else ""
    if added and path:
        return  # looked at when all is composed
    keys = [str(k) for k in node if not str(k).startswith("_") and k != "overrides"]
    nearest = did_you_mean(name, keys)
    listed = "" if nearest else f" (keys: {', '.join(keys) or 'none'})"
    raise ConfigError(f"no key {name}{where}{nearest}{listed}")


def check_config(config: DictConfig, run_folder: Path) -> None:
    """Raises ConfigError where settings do not go together or name a file that is not there."""
    data = config.data
    if "data/common/splits" in origins("data", data.get("_target_")):
        _check_splits(data)
    if "path" in data.keys() and reads_data(config):  # noqa: SIM118  # a key whose value is ??? is not in it
        _check_files(data)
    if config.score_mode is not None and config.score is None:
        raise ConfigError(f"score_mode={config.score_mode} without a score: set score= too")
    _check_score(config)
    if "lr_monitor" in config.callbacks and not config.logger and config.action == "fit":
        raise ConfigError("callbacks=lr_monitor writes to loggers, and there is none: choose logger=, or leave it out")
    _check_input(config, run_folder)
    if config.steps_per_execution > 1:
        _check_single_step_only(config)
    _check_fused(config)
    if config.trainer.devices != 1 or config.trainer.get("num_nodes", 1) != 1:
        _check_single_process_only(config)
    if config.trainer.get("strategy") == "fsdp":
        _check_fsdp(config)
    if config.action == "fit" and config.ckpt is not None:
        raise ConfigError(f"ckpt={config.ckpt} with action=fit: a fit resumes by its name=")
    checkpoint = checkpoint_path(config, run_folder)
    if checkpoint is not None and not checkpoint.is_file():
        if config.ckpt is None:
            raise ConfigError(f"action={config.action}: {run_folder} has no checkpoint yet; let its fit end an epoch")
        raise ConfigError(f"ckpt={config.ckpt}: there is no file {checkpoint}")


def _check_splits(data: DictConfig) -> None:
    if {"val_fraction", "test_fraction"} <= data.keys() and data.val_fraction + data.test_fraction >= 1:
        raise ConfigError(
            f"data.val_fraction={data.val_fraction} and data.test_fraction={data.test_fraction} "
            "leave nothing to train on"
        )
    folds, fold = data.get("folds"), data.get("fold", 0)
    if folds is None and fold != 0:
        raise ConfigError(f"data.fold={fold} without data.folds: say of how many parts this is one")
    if folds is not None and fold >= folds:
        raise ConfigError(f"data.fold={fold}: of data.folds={folds}, the last is {folds - 1}")


def _check_score(config: DictConfig) -> None:
    """Raises ConfigError for a score that no validation will measure."""
    if config.score is None:
        return
    metrics = config.task.metrics
    names = ["loss", *(UNCHOSEN if metrics is None else metrics)]
    known = [f"val/{name}" for name in names]
    if config.score not in known:
        raise ConfigError(
            f"score={config.score}: expected one of {', '.join(known)}, which each validation measures; task.metrics= "
            "adds others"
        )


def _check_fused(config: DictConfig) -> None:
    """Raises ConfigError for what a fused optimizer, which unscales 16-bit gradients inside its step, gets wrong.

    Lightning cannot clip such gradients. SGD leaves its momentum as memory happened to be where the first step
    overflows, and the next step adds that to the weights (torch 2.15).
    """
    if not config.optimizer.get("fused") or config.trainer.precision != "16-mixed":
        return
    clip = config.trainer.gradient_clip_val
    if clip is not None:
        raise ConfigError(
            f"trainer.gradient_clip_val={clip} with trainer.precision=16-mixed needs optimizer.fused=false"
        )
    if config.optimizer._target_ == "torch.optim.SGD" and config.optimizer.get("momentum"):
        raise ConfigError(
            "optimizer.fused=true with trainer.precision=16-mixed: torch's fused SGD spoils its momentum where the "
            "first step overflows; use optimizer.fused=false, or trainer.precision=bf16-mixed"
        )


def _check_files(data: DictConfig) -> None:
    """Looks at the file or folder that our own data sets are to read, as far as that goes without torch and pandas."""
    if not data._target_.startswith(f"{__package__}.data."):
        return
    if "target" not in data.keys():  # noqa: SIM118
        _check_folder(data)
        return
    from normlab.data.header import check_table  # looks into files with the help of this module

    keys: Any = OmegaConf.to_container(data, resolve=True)
    check_table(keys)


def _check_folder(data: DictConfig) -> None:
    """Raises ConfigError for images that are not named, or not there."""
    if OmegaConf.is_missing(data, "path"):
        raise ConfigError("data.path= is needed: the folder of the images")
    if not Path(data.path).is_dir():
        found = "that is a file; a folder is needed" if Path(data.path).exists() else "there is no such folder"
        raise ConfigError(f"data.path={data.path}: {found}")


def checkpoint_path(config: DictConfig, run_folder: Path) -> Path | None:
    """The checkpoint that an action loads before it starts; None for none."""
    ckpt = config.ckpt or ("best" if config.action in NEED_A_RUN else None)
    if ckpt is None:
        return None
    return run_folder / "checkpoints" / f"{ckpt}.ckpt" if ckpt in ("best", "last") else Path(ckpt)


def input_path(config: DictConfig) -> Path | None:
    """The new samples to predict; None where the test part is."""
    given = config.get("input")  # a run folder may be older than the key
    return None if given is None else Path(str(given))


def reads_data(config: DictConfig) -> bool:
    """Whether an action reads the data set; to predict new samples the run folder has what is needed of it."""
    return config.action != "predict" or input_path(config) is None


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


def did_you_mean(name: str, known: Iterable[str], most: int = 1) -> str:
    """The end of a refusal: up to `most` of the known names nearest to `name`, if any is near."""
    near = difflib.get_close_matches(name, list(known), n=most)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _check_input(config: DictConfig, run_folder: Path) -> None:
    path = input_path(config)
    if path is None:
        return
    if not str(config.input):
        raise ConfigError("input= is empty: expected a file or folder of new samples")
    if config.action != "predict":
        raise ConfigError(f"input={path} with action={config.action}: action=predict name=<run> reads it")
    if not path.exists():
        raise ConfigError(f"input={path}: there is no such file or folder")
    if not (run_folder / "data.json").is_file():
        raise ConfigError(
            f"input={path}: {run_folder} has no data.json to read new samples by, being older than action=predict or "
            "of own data: train again under another name=, or leave out input= to predict the test part"
        )


def _check_single_step_only(config: DictConfig) -> None:
    steps = f"steps_per_execution={config.steps_per_execution}"
    for key, off in SINGLE_STEP_ONLY.items():
        if config.trainer[key] != off:
            raise ConfigError(f"trainer.{key}={config.trainer[key]} cannot be combined with {steps}; use 1")
    if config.trainer.precision == "16-mixed":
        raise ConfigError(f"trainer.precision=16-mixed scales each step and cannot be combined with {steps}; use 1")
    if "val_check_interval" in config.trainer:
        raise ConfigError(f"trainer.val_check_interval cannot be combined with {steps}; use 1")
    monitor = config.callbacks.get("lr_monitor")
    if monitor is not None and monitor.logging_interval == "step":
        raise ConfigError(f"callbacks.lr_monitor.logging_interval=step cannot be combined with {steps}; use epoch")


def _check_single_process_only(config: DictConfig) -> None:
    key = "devices" if config.trainer.devices != 1 else "num_nodes"
    devices = f"trainer.{key}={config.trainer[key]}"
    if config.steps_per_execution > 1:
        raise ConfigError(f"steps_per_execution={config.steps_per_execution} cannot be combined with {devices}; use 1")
    if config.action == "predict":
        raise ConfigError(f"action=predict cannot be combined with {devices}: it takes one process, trainer.devices=1")
    if config.action == "lr_find":
        raise ConfigError(
            f"action=lr_find cannot be combined with {devices}: search with trainer.devices=1 and data.batch_size= of "
            "all processes together"
        )


def check_several(config: DictConfig, processes: int | str) -> None:
    """Raises ConfigError for a fit that is to cut a network over a single process."""
    if config.action in ("fit", "lr_find") and processes == 1:
        raise ConfigError(
            "trainer.strategy=fsdp cuts a network over several processes, and there is one: set trainer.devices=2 or "
            "more, on the CPU with trainer.accelerator=cpu, or trainer.strategy=ddp"
        )


def _check_fsdp(config: DictConfig) -> None:
    if config.trainer.get("num_nodes", 1) == 1:
        check_several(config, config.trainer.devices)
    for key, value, remedy in (
        ("trainer.precision", "16-mixed", "bf16-mixed"),  # which scales gradients by what one process sees
        ("channels_last", True, "false"),  # fully_shard cuts contiguous parameters only
        ("compile", True, "false"),
        ("nonfinite", "skip", "raise"),
    ):
        if OmegaConf.select(config, key) == value:
            raise ConfigError(f"{key}={show(value)} cannot be combined with trainer.strategy=fsdp; use {remedy}")


@cache
def _requirements() -> list[Requirement]:
    return [Requirement(line) for line in importlib.metadata.requires("normlab") or []]


def _is_of_extra(requirement: Requirement, extra: str) -> bool:
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
