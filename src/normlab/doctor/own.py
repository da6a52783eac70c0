"""A network of a person's own module, looked at from a shell."""

from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from normlab.doctor.diagnose import diagnose
from normlab.doctor.finding import Diagnosis
from normlab.errors import ConfigError
from normlab.folder.weights import read_weights


def diagnose_named(network: str, train: str | None, test: str | None, weights: Path | None) -> Diagnosis:
    """What `diagnose` says of a network and of loaders that are named as module:attribute.

    A function is called without arguments for what it returns. weights: a state dict to load into the network. Raises
    ConfigError.
    """
    if train is None or test is None:
        raise ConfigError(f"{network}: name the loaders of its data too, as --train {_module(network)}:train_loader …")
    named = _named(network)
    if not isinstance(named, nn.Module):
        raise ConfigError(
            f"{network} is of {type(named).__name__}; expected an nn.Module, or a function that makes one"
        )
    if weights is not None:
        _load(named, weights)
    try:
        return diagnose(named, _named(train), _named(test))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _named(text: str) -> Any:
    module, _, attribute = text.partition(":")
    try:
        value = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{text}: there is no module {error.name} in this folder or environment") from error
    except AttributeError as error:
        raise ConfigError(f"{text}: {error}; give module:attribute") from error
    makes = callable(value) and not isinstance(value, nn.Module) and not hasattr(value, "__iter__")
    return value() if makes else value


def _load(network: nn.Module, file: Path) -> None:
    try:
        network.load_state_dict(read_weights(file))
    except ConfigError as error:
        raise ConfigError(f"--weights: {str(error).removeprefix('init: ')}") from error
    except RuntimeError as error:
        raise ConfigError(f"--weights: {file} holds another network: {' '.join(str(error).split())}") from error


def _module(text: str) -> str:
    return text.partition(":")[0]
