"""What a training starts from, `init=`, and what of it is frozen: checked without torch."""

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from normlab.config.cutting import cuts
from normlab.errors import ConfigError, did_you_mean, show
from normlab.folder import files, place, reuse
from normlab.folder.keep import check_kept

TRAINING = ("fit", "lr_find")  # actions that start from `init` and freeze
KEYS = ("init", "freeze", "thaw_at")
RATES_OF_PARTS = (
    "layer_decay",
    "norm_bias_scale",
)  # keys under optimizer by which parts of the network learn otherwise


def check_typed_keys(parsed: Iterable[Override], action: str) -> None:
    """Raises ConfigError where an action that trains nothing is to start from weights, or to freeze."""
    for override in parsed:
        if override.key_or_group in KEYS and action not in TRAINING and override.value() is not None:
            key = override.key_or_group
            raise ConfigError(
                f"{key}={show(override.value())} with action={action}: it trains nothing; leave out {key}="
            )


def check_start(config: DictConfig, run_folder: Path) -> None:
    """Raises ConfigError for weights that are not there, and for keys that do not go together."""
    if config.action not in TRAINING:
        return
    _check_freezing(config)
    for key in RATES_OF_PARTS if config.action == "lr_find" else ():
        if config.optimizer.get(key) not in (None, 1):
            raise ConfigError(
                f"optimizer.{key}={config.optimizer[key]} with action=lr_find, which raises one rate for all: search "
                f"with optimizer.{key}=1"
            )
    if config.init is None:
        return
    if config.ckpt is not None:
        raise ConfigError(f"init={config.init} and ckpt={config.ckpt} are both weights to start from: leave out one")
    if not reuse.has_trained(run_folder):  # a run that goes on has loaded them, and needs them no more
        init_path(config.init)


def init_path(init: Any) -> Path:
    """The file that `init` names: the file itself, or the best checkpoint of a run, by its name or its folder.

    Raises ConfigError where there is none.
    """
    if not isinstance(init, str) or not init:
        raise ConfigError(f"init={show(init)}: expected a run, a checkpoint or a file of weights")
    file = Path(init)
    if file.is_file():
        if file.suffix == ".safetensors" and importlib.util.find_spec("safetensors") is None:
            raise ConfigError(f"init={init} needs safetensors, which is not installed: pip install safetensors")
        return file
    folder = files.find_run(init)
    if folder is None:
        near = did_you_mean(init, files.run_names())
        raise ConfigError(f"init={init}: there is no such file, and no run of that name in {place.ROOT}{near}")
    files.read_result(folder)  # a run of a later version means something else by its files
    best = folder / "checkpoints" / "best.ckpt"
    if not best.is_file():
        check_kept(best, files.read_config(folder).keep, f"init={init}")
        raise ConfigError(f"init={init}: {place.shown(folder)} has no checkpoint yet; let its fit end an epoch")
    return best


def _check_freezing(config: DictConfig) -> None:
    freeze: Any = OmegaConf.to_container(config.freeze) if OmegaConf.is_list(config.freeze) else config.freeze
    patterns = freeze if isinstance(freeze, list) else [freeze]
    if freeze is not None and not (patterns and all(isinstance(name, str) and name for name in patterns)):
        raise ConfigError(f"freeze={show(freeze)}: expected backbone, or globs of names, such as [conv1,blocks.0*]")
    if config.thaw_at is None:
        return
    if freeze is None:
        raise ConfigError(
            f"thaw_at={config.thaw_at} without freeze=: nothing is frozen; say what, such as freeze=backbone"
        )
    most = config.trainer.max_epochs
    if isinstance(most, int) and 0 <= most <= config.thaw_at:
        raise ConfigError(
            f"thaw_at={config.thaw_at} with trainer.max_epochs={most}: epochs count from 0, and the run ends before; "
            "leave out thaw_at= to keep it frozen"
        )
    if cuts(config):
        raise ConfigError(
            f"thaw_at={config.thaw_at} cannot be combined with trainer.strategy=fsdp: keep it frozen, or use ddp"
        )
