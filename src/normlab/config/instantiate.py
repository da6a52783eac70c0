"""Objects from their `_target_` and keys, with errors that name the key."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import hydra.utils
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from normlab.errors import ConfigError, is_library

# What normlab gives to a part, and what a person sets instead.
GIVEN = {
    "monitor": "set score=",
    "mode": "set score= and score_mode=",
    "save_dir": "set name=",
    "run_folder": "set name=",
    "params": "the network has them",
    "optimizer": "choose optimizer=",
    "total_steps": "set trainer.max_epochs= or trainer.max_steps=",
    "norm": "choose norm=",
}


def make(config: DictConfig, group: str, **objects: Any) -> Any:
    """The object of a group's `_target_`, from the group's keys and `objects`.

    Raises ConfigError for keys that are unknown, and for those that `objects` has too.
    """
    return make_node(config[group], group, **objects)


def make_node(node: DictConfig, key: str, **objects: Any) -> Any:
    """The object of a `_target_` that stands under `key`, from its keys and `objects`. Raises ConfigError as `make`."""
    partial = make_partial(node, key, **objects)
    if node.get("_partial_"):
        return partial
    try:
        return partial(**objects)
    except (ValueError, TypeError) as error:
        if is_library(partial.func):  # then it is about the values of the keys
            raise ConfigError(f"{key}: {error}") from error
        raise


def make_partial(node: DictConfig, key: str, **objects: Any) -> Any:
    """What `make_node` would call, not called yet; `objects` are what it will be called with."""
    check_given(node, key, objects)
    try:
        partial = hydra.utils.instantiate(node, _partial_=True, _convert_="all")
    except (InstantiationException, ImportError) as error:
        _raise_inner(error)
        reason = str(error.__cause__ or error).splitlines()[-1]
        raise ConfigError(f"{key}._target_={node._target_} cannot be built: {reason}") from error
    try:
        inspect.signature(partial.func).bind_partial(*partial.args, **{**partial.keywords, **objects})
    except TypeError as error:
        raise ConfigError(f"{key}: {node._target_} {error}") from error
    return partial


def locate(target: str, key: str) -> Any:
    """What a `_target_` under `key` names. Raises ConfigError, and what went wrong inside its module."""
    try:
        return hydra.utils.get_object(target)
    except ImportError as error:
        _raise_inner(error)
        raise ConfigError(f"{key}._target_={target} cannot be imported: {str(error).splitlines()[-1]}") from error


def _raise_inner(error: BaseException) -> None:
    """Raises the mistake inside a module that kept it from being imported, if it was that."""
    while error.__cause__ is not None:
        error = error.__cause__
    if not isinstance(error, ImportError | AttributeError | InstantiationException):
        raise error from None


def check_given(node: DictConfig, key: str, given: Iterable[str]) -> None:
    """Raises ConfigError where a part's keys set what normlab gives it, which would silently count for nothing."""
    for name in given:
        if name in node:
            raise ConfigError(f"{key}.{name} is given by normlab; {GIVEN.get(name, 'it comes from the data')}")


def offer(node: DictConfig, key: str, objects: Mapping[str, Any]) -> Any:
    """Builds a part with those of `objects` that its constructor has a parameter for."""
    return make_node(node, key, **asked_for(node, key, objects))


def asked_for(node: DictConfig, key: str, objects: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `objects` that the constructor of a part has a parameter for."""
    parameters = inspect.signature(locate(node._target_, key)).parameters
    return {name: value for name, value in objects.items() if name in parameters}
