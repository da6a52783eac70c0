"""The arms that `sweep=fair` compares, and the space that is tuned within each: composed and checked without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from normlab.config.compose import Composed, compose_job
from normlab.config.engines import NOT_SEARCHED, check_launcher, check_pruner
from normlab.config.fair import check_keys, is_of_fair
from normlab.config.names import check_name
from normlab.config.options import GROUPS
from normlab.config.overrides import is_hydras, parse, typed_value
from normlab.config.source import ConfigSource
from normlab.config.space import Choices, Job, Numbers, Space, grid, probes
from normlab.errors import ConfigError, show
from normlab.folder.identity import LENGTH, REPLICATES, config_hash

RATE = "optimizer.lr"  # what is tuned where nothing is typed for it
AROUND = 30  # its space then reaches from a 30th of the option's own rate to 30 times that
DESCRIBING = ("model", "norm", "data", "loss", "optimizer", "scheduler")  # groups that say what an arm is


@dataclass(frozen=True)
class Arm:
    """One of the variants that are compared.

    name: the settings that tell it from the others. settings: what was chosen for it, by key. overrides: what all its
    jobs have in common. space: what is tuned. composed: its configuration with each key of the space at its default.
    """

    name: str
    settings: dict[str, str]
    overrides: tuple[str, ...]
    space: Space
    composed: Composed = field(repr=False)
    source: ConfigSource = field(repr=False)

    @property
    def config(self) -> DictConfig:
        return self.composed.config

    def default(self, key: str) -> Any:
        """The value that a key has without tuning, or the option of a group."""
        chosen = self.composed.hydra.runtime.choices
        return chosen[key] if key in chosen else OmegaConf.select(self.config, key)

    def job(self, values: Mapping[str, Any]) -> Job:
        """A job of this arm with other values, by key. Raises ConfigError."""
        common = [line for line in self.overrides if _key(line) not in values]
        lines = [*common, *(f"{key}={show(value)}" for key, value in values.items())]
        chosen = tuple(line for line in lines if _key(line) in (*self.settings, *values))
        if values.keys() & {*GROUPS}:
            config = compose_job(lines, self.source).config
        else:  # composing each job takes ten times as long
            config = self.config.copy()
            for override in parse(lines[len(common) :]):
                OmegaConf.update(config, override.key_or_group, override.value())
        longer = config_hash(config, but=LENGTH) if config.extend else None
        return Job(tuple(lines), chosen, config_hash(config), longer)


@dataclass(frozen=True)
class Fair:
    """A checked `sweep=fair`. arms: what is compared. Its other fields are the keys under `fair`, see conf/train.yaml.

    pruner: the pruner's keys; None: trials are not pruned. pruner_name: its option.
    """

    arms: tuple[Arm, ...]
    trials: int | None
    seeds: int
    budget: str
    seconds: float | None
    over: str
    sampler: str
    pruner: dict[str, Any] | None
    pruner_name: str

    def trial(self, arm: Arm, point: Mapping[str, Any]) -> Job:
        """A tuning run, which leaves the test part alone."""
        return arm.job({**point, "test": False})

    def fresh(self, arm: Arm, point: Mapping[str, Any], replicate: int) -> Job:
        """A run of a tuned setting whose seed no tuning has used. replicate: counted from 1."""
        return arm.job({**point, **self._replicate(arm.config, replicate)})

    def _replicate(self, config: DictConfig, replicate: int) -> dict[str, int]:
        values = {"seed": config.seed + replicate}
        if self.over == "data.split_seed":
            values[self.over] = config.data.split_seed + replicate
        if self.over == "data.fold":
            others = [fold for fold in range(config.data.folds) if fold != config.data.fold]
            values[self.over] = others[replicate - 1]
        return values


def arms_of(fixed: Sequence[str], space: Space, source: ConfigSource) -> tuple[Arm, ...]:
    """The arms of a sweep, each composed. fixed, space: see `space.search_space`. Raises ConfigError."""
    for key, values in space.items():
        _check_key(key, values)
    if typed_value(parse(fixed), "test") is not None:
        raise ConfigError("test= with sweep=fair: its trials leave the test part alone, and its fresh runs take it")
    spanning = {key: values for key, values in space.items() if isinstance(values, Choices) and not values.tuned}
    tuned = {key: values for key, values in space.items() if key not in spanning}
    arms = tuple(_arm(settings, fixed, tuned, source) for settings in grid(spanning))
    for key in tuned:
        if not any(key in arm.space for arm in arms):
            check_name(arms[0].config, key, added=False)
    _check_different(arms)
    return arms


def check_fair(arms: tuple[Arm, ...], settings: DictConfig, typed: Sequence[Override]) -> Fair:
    """The whole of a sweep, with jobs at the ends of the space of each arm checked.

    settings: the sweep's own configuration. typed: the command line. Raises ConfigError.
    """
    keys, chosen = settings.fair, settings.hydra.sweeper.get("pruner")
    name = settings.hydra.runtime.choices.get("hydra/sweeper/pruner") or "none"
    check_keys(keys, typed, prunes=chosen is not None)
    if chosen is not None:
        check_pruner(chosen)
    pruner: Any = None if name == "none" else OmegaConf.to_container(chosen, resolve=True)
    trials = keys.trials if keys.budget == "trials" else None
    fair = Fair(arms, trials, keys.seeds, keys.budget, keys.seconds, keys.over, keys.sampler, pruner, name)
    for arm in arms:
        _check_space(arm, trials)
        _check_over(arm, fair)
        for lines in probes([*arm.overrides, "test=false"], arm.space):
            check_launcher(settings.hydra.launcher, compose_job(lines, arm.source).config)
        fair.fresh(arm, {}, fair.seeds)
        if pruner is not None and arm.config.score is not None and arm.config.score_mode is None:
            raise ConfigError(f"score={arm.config.score} with a pruner: set score_mode=max or score_mode=min too")
    return fair


def _arm(settings: dict[str, str], fixed: Sequence[str], tuned: Space, source: ConfigSource) -> Arm:
    typed = [override for override in parse(fixed) if not is_hydras(override)]
    chosen = [f"{key}={value}" for key, value in settings.items()]
    composed = compose_job([*(str(override.input_line) for override in typed), *chosen], source)
    lines = [str(override.input_line) for override in typed if not is_of_fair(override)]
    described = {o.key_or_group: show(o.value()) for o in typed if o.key_or_group in DESCRIBING}
    named = settings or described or {"norm": composed.hydra.runtime.choices.norm}
    name = " ".join(f"{key}={value}" for key, value in named.items())
    space = {key: values for key, values in tuned.items() if _has(composed.config, key)}
    if RATE not in {*tuned, *settings, *(override.key_or_group for override in typed)}:
        space |= _rates(composed.config)
    return Arm(name, {**settings, **described} or named, (*lines, *chosen), space, composed, source)


def _rates(config: DictConfig) -> Space:
    """The space of the learning rate around the one that the optimizer has by default; empty where it has none."""
    rate = config.optimizer.get("lr")
    if not isinstance(rate, int | float) or rate <= 0:
        return {}
    return {RATE: Numbers(*(float(f"{end:.3g}") for end in (rate / AROUND, rate * AROUND)), log=True)}


def _check_key(key: str, values: Choices | Numbers) -> None:
    """Raises ConfigError for a key that neither tells arms apart nor can be tuned."""
    if key == "seed":
        raise ConfigError(
            f"seed={values}: sweep=fair compares on fresh seeds of its own; fair.seeds= says how many, and seed= takes "
            "the one that tuning has"
        )
    if key in REPLICATES:
        raise ConfigError(f"{key}={values}: with sweep=fair the fresh runs vary it, by fair.over={key}")
    if key in (*NOT_SEARCHED, "test", "sweep", "extend") or key.split(".")[0].split("/")[0] in ("hydra", "fair"):
        raise ConfigError(f"{key}={values}: {key} is no setting by which arms could differ")


def _check_space(arm: Arm, trials: int | None) -> None:
    """Raises ConfigError where an arm has nothing to tune, or could do worse than with what it is without tuning."""
    if not arm.space:
        raise ConfigError(
            f"{arm.name} has nothing to tune: let optimizer.lr= out, or type an interval, such as "
            "'optimizer.lr=tag(log,interval(0.001,1))'"
        )
    for key, values in arm.space.items():
        default = arm.default(key)
        if isinstance(values, Choices):
            inside = show(default) in values.values
        else:
            inside = isinstance(default, int | float) and values.low <= default <= values.high
        if not inside and default is not None:
            raise ConfigError(
                f"{key}={values}: {show(default)}, which {arm.name} has without tuning, lies outside; widen the space"
            )
    points = prod(values.count for values in arm.space.values())
    if points < (trials or 1):
        raise ConfigError(
            f"{arm.name} has {points} points to choose from, and fair.trials={trials}: lower fair.trials, or tune more"
        )


def _check_over(arm: Arm, fair: Fair) -> None:
    """Raises ConfigError where the data of an arm has not as many splits or folds as the fresh runs need."""
    if fair.over == "seed":
        return
    if fair.over.partition(".")[2] not in arm.config.data:
        raise ConfigError(f"fair.over={fair.over}: the data of {arm.name} has no such key; leave fair.over out")
    if fair.over != "data.fold":
        return
    folds = arm.config.data.folds
    if folds is None:
        raise ConfigError(
            f"fair.over=data.fold: set data.folds={fair.seeds + 1}, one for tuning and {fair.seeds} others"
        )
    if fair.seeds > folds - 1:
        raise ConfigError(
            f"fair.seeds={fair.seeds} over data.folds={folds}: tuning takes one fold, and {folds - 1} are left; set "
            f"fair.seeds={folds - 1}, or more folds"
        )


def _check_different(arms: Sequence[Arm]) -> None:
    """Raises ConfigError where two arms are the same run, as compile=true and compile=false are."""
    hashes = [config_hash(arm.config) for arm in arms]
    for number, each in enumerate(hashes):
        if each in hashes[:number]:
            other = arms[hashes.index(each)].name
            raise ConfigError(f"{other} and {arms[number].name} are the same run, and there is nothing to compare")


def _key(line: str) -> str:
    return line.partition("=")[0].lstrip("+")


def _has(config: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return isinstance(node, DictConfig) and name in [*node.keys()]
