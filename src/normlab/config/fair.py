"""The keys of `sweep=fair`, which are the sweep's own and no job's: see conf/train.yaml."""

from collections.abc import Sequence

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from normlab.config.names import check_extra
from normlab.config.options import fair_keys
from normlab.config.rules import rule
from normlab.config.values import check_value
from normlab.errors import ConfigError, did_you_mean, show

NODE = "fair"
LABORATORY = ("lab", "claims")  # the keys of sweep=claims, which are no job's either


def is_fair(sweeper: DictConfig) -> bool:
    return str(sweeper.get("_target_")).endswith(".FairSweeper")


def is_of_fair(override: Override) -> bool:
    """Whether an override sets one of these keys."""
    return override.get_key_element().split(".")[0] == NODE


def leave_out(config: DictConfig, sweeper: DictConfig, typed: Sequence[Override]) -> None:
    """Takes the keys out of the configuration of a run. Raises ConfigError for one that nobody reads.

    typed: the command line's. Where another sweep was typed, the keys of an experiment for sweep=fair are left out.
    """
    with open_dict(config):
        for node in LABORATORY:
            config.pop(node, None)
    if NODE not in config:  # a replayed run, whose configuration has none
        return
    with open_dict(config):
        given = OmegaConf.to_container(config.pop(NODE))
    assert isinstance(given, dict)
    for key in given.keys() - fair_keys().keys():
        raise ConfigError(f"no key {key} in fair{did_you_mean(str(key), fair_keys())} (keys: {', '.join(fair_keys())})")
    if is_fair(sweeper):
        return
    keys = {override.key_or_group for override in typed}
    for key, value in given.items():
        if value != fair_keys()[str(key)] and ("sweep" not in keys or f"fair.{key}" in keys):
            raise ConfigError(f"fair.{key}={show(value)}: the keys of fair belong to -m sweep=fair; choose it")


def check_keys(fair: DictConfig, typed: Sequence[Override], prunes: bool) -> None:
    """Raises ConfigError where the keys break their rules or do not go together.

    typed: the command line's. prunes: whether a pruner was chosen.
    """
    for key, value in fair.items():
        check_value(f"fair.{key}", value, value, rule(f"fair.{key}", None))
    by_time = fair.budget == "seconds"
    if by_time and fair.seconds is None:
        raise ConfigError("fair.budget=seconds: say how many each arm may train, such as fair.seconds=600")
    if not by_time and fair.seconds is not None:
        raise ConfigError(f"fair.seconds={fair.seconds} counts with fair.budget=seconds: add that, or leave it out")
    if by_time and any(override.key_or_group == "fair.trials" for override in typed):
        raise ConfigError(f"fair.trials={fair.trials} with fair.budget=seconds: the time says how many; leave out one")
    if fair.sampler == "tpe":
        check_extra("fair.sampler=tpe", "optuna")
    if prunes:
        check_extra("hydra/sweeper/pruner=", "optuna")
