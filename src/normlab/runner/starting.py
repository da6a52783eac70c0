"""How a training starts: from which weights, and with what of the network frozen."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from normlab.config.starting import TRAINING, init_path
from normlab.errors import ConfigError
from normlab.folder.place import shown
from normlab.folder.weights import content_sum, read_weights
from normlab.models.common.weights import load_fitting
from normlab.tasks.freezing import FrozenPart, freeze

log = logging.getLogger(__name__)


def freeze_part(config: DictConfig, network: nn.Module) -> FrozenPart | None:
    """Freezes what the configuration says; None where it says nothing. Raises ValueError as `freeze`."""
    if config.freeze is None or config.action not in TRAINING:
        return None
    what: Any = OmegaConf.to_container(config.freeze) if OmegaConf.is_list(config.freeze) else config.freeze
    return freeze(network, what)


def load_init(
    config: DictConfig, network: nn.Module, folder: Path, earlier: Mapping[str, Any], says: bool = True
) -> dict[str, str] | None:
    """Loads the weights that a training starts from; returns their file and its content sum, for result.json.

    A run that goes on from a checkpoint of its own has loaded them, and returns what it then wrote. earlier: its
    result.json. says: whether to tell what was loaded, which one process does.
    Raises ConfigError for weights that do not fit, and where a run that goes on names others by the same words.
    """
    if config.init is None or config.action not in TRAINING:
        return None
    if any((folder / "checkpoints" / f"{which}.ckpt").is_file() for which in ("within_epoch", "last")):
        known = earlier.get("init")
        if known is not None and _was_changed(Path(known["file"]), known["sha256"]):
            raise ConfigError(
                f"init={config.init}: {known['file']} is no longer the file that the run was begun with; choose "
                "another name= to start from it, or move it away to go on"
            )
        return known
    file = init_path(config.init)
    try:
        fit = load_fitting(network, read_weights(file))
    except ConfigError as error:
        message = str(error)
        raise ConfigError(message if message.startswith("init") else f"init={shown(file)}: {message}") from error
    if says:
        log.info(f"init={shown(file)}: {fit}")
    return {"file": str(shown(file)), "sha256": content_sum(file)}


def _was_changed(file: Path, before: str) -> bool:
    return file.is_file() and content_sum(file) != before
