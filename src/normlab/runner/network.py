"""The network of a run: given what its constructor asks for."""

import inspect
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig
from torch import Tensor, nn

from normlab.config.instantiate import asked_for, locate, make
from normlab.config.source import OURS
from normlab.config.starting import TRAINING
from normlab.data.common.base import DataModule
from normlab.data.common.samples import training_samples
from normlab.data.tables.embeddings import Encoded
from normlab.errors import ConfigError

CONTRACT = (
    "normlab gives a network norm, input_shape and out_features where its constructor has parameters of these names; "
    "the other parameters stand in its yaml, or are typed as model.<name>="
)

SAMPLES = "training_samples"  # what a network asks for that begins with what its data looks like


def make_network(config: DictConfig, data: Any, norm: Any) -> nn.Module:
    """The configured network, behind the data's encoder where it has one. Raises ConfigError."""
    encoder = data.encoder() if isinstance(data, DataModule) else None
    shape = data.input_shape if encoder is None else (encoder.out_features,)
    offered = {"norm": norm, "input_shape": shape, "out_features": data.out_features}
    if SAMPLES in inspect.signature(locate(config.model._target_, "model")).parameters:
        offered[SAMPLES] = _samples(config, data, encoder)
    given = offered if _hands_on(config) else asked_for(config.model, "model", offered)
    _check_complete(config, given)
    network = make(config, "model", **given)
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"model: {config.model._target_} makes a {type(network).__name__}; expected a torch.nn.Module"
        )
    if encoder is None:
        return network
    if config.trainer.precision == "bf16-true":  # counts to 256
        raise ConfigError("data.categories=embed: trainer.precision=bf16-true rounds categories; use bf16-mixed")
    return Encoded(encoder, network)


def _samples(config: DictConfig, data: Any, encoder: nn.Module | None) -> Tensor | None:
    """Training samples for a network that is trained; None for one whose weights a checkpoint has."""
    if encoder is not None:
        raise ConfigError(
            f"data.categories=embed: {config.model._target_} begins with its training samples, and these are embedded "
            "by what is still to be trained; use data.categories=onehot"
        )
    return training_samples(data) if config.action in TRAINING else None


def _hands_on(config: DictConfig) -> bool:
    """Whether the constructor takes any key; one that passes its keys on to its parent does."""
    parameters = inspect.signature(locate(config.model._target_, "model")).parameters.values()
    return any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters)


def _check_complete(config: DictConfig, given: Mapping[str, Any]) -> None:
    """Raises ConfigError where the constructor needs more than it gets, or takes no norm though one was chosen."""
    target = config.model._target_
    parameters = inspect.signature(locate(target, "model")).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if missing := [name for name in needed if name not in given and name not in config.model]:
        raise ConfigError(f"model: {target} needs {', '.join(missing)}: set model.{missing[0]}=; {CONTRACT}")
    if "norm" not in given and config.norm._target_ != OURS.read("norm", "batch")["_target_"]:
        raise ConfigError(f"norm={config.norm._target_}: {target} takes no norm, so it counts for nothing; {CONTRACT}")
