"""Reads weights that a run starts from: a checkpoint of ours, or a file of torchvision, timm or another program.

Only tensors and plain values are read, so that reading runs no code.
"""

import hashlib
from pathlib import Path
from typing import Any

from torch import Tensor

from normlab.errors import ConfigError, DamagedError
from normlab.folder.checkpoints import PickledError, load_plain
from normlab.folder.place import shown

# Under what programs put the weights beside other things; averaged weights come first, as they are those that score.
WRAPPERS = ("model_ema", "state_dict", "model")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name: .safetensors, or what `torch.save` has written.

    What else lies in a file, such as the state of an optimizer, is left out. Raises ConfigError for a file without
    tensors by name, and for one that holds a whole pickled network.
    """
    loaded = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
    for wrapper in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
            break
    named = loaded.items() if isinstance(loaded, dict) else ()
    weights = {name: value for name, value in named if isinstance(name, str) and isinstance(value, Tensor)}
    if not weights:
        raise ConfigError(
            f"init: {shown(path)} holds no tensors by name, neither at its top nor under "
            f"{', '.join(WRAPPERS)}: save a state_dict"
        )
    return weights


def content_sum(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex digits."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _torch(path: Path) -> Any:
    try:
        return load_plain(path)
    except PickledError as error:
        raise ConfigError(
            f"init: {shown(path)} holds more than tensors and plain values, such as a whole network, and reading that "
            "would run code of its own: where it was made, save torch.save(network.state_dict(), file)"
        ) from error
    except DamagedError as error:
        raise ConfigError(f"init: {shown(path)} cannot be read: {error}") from error


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError  # an extra's: only whoever names such a file needs it
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ConfigError(f"init: {shown(path)} cannot be read: {error}") from error
