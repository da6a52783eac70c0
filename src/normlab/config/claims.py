"""The claims that `-m experiment=claims/<name>` tests, as the arms of one fair sweep; see docs/laboratory.md."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from normlab.config.arms import RATE, Arm, Fair
from normlab.config.compose import compose_job
from normlab.config.engines import check_launcher
from normlab.config.fair import LABORATORY, check_keys, is_of_fair
from normlab.config.overrides import is_hydras, lines_of, parse
from normlab.config.source import ConfigSource
from normlab.config.space import Space, read_values
from normlab.errors import ConfigError, did_you_mean
from normlab.folder.identity import REPLICATES, config_hash
from normlab.folder.measures import MEASURES

FORMS = ("short", "long")
KEYS = ("claim", "design", "pairs", "measure", "margin", "least_seeds", "arms", "effects", "literature")
FURTHER = ("dissent", "anchors")  # keys that a claim may lack


@dataclass(frozen=True)
class Laboratory(Fair):
    """A fair sweep whose arms are those of claims.

    form: short or long. claims: what claims.json says of each, in plain values; its arms are called as those of the
    sweep.
    """

    form: str
    claims: tuple[dict[str, Any], ...]

    def measures(self) -> dict[str, list[str]]:
        """What is measured of the fresh runs of each arm, by the arm's name."""
        wanted: dict[str, dict[str, None]] = {}
        for claim in self.claims:
            for pair in claim["pairs"]:
                for name in pair["arms"].values():
                    wanted.setdefault(name, {})[claim["measure"]] = None
        return {name: [*measures] for name, measures in wanted.items()}


def is_laboratory(sweeper: DictConfig) -> bool:
    return str(sweeper.get("_target_")).endswith(".ClaimsSweeper")


def laboratory(settings: DictConfig, typed: Sequence[Override], source: ConfigSource) -> Laboratory:
    """The whole of a laboratory's sweep, each arm composed and checked.

    settings: the sweep's configuration. typed: the command line. Raises ConfigError.
    """
    lab, claims = settings.lab, settings.claims
    if lab.form not in FORMS:
        raise ConfigError(f"lab.form={lab.form}: expected {' or '.join(FORMS)}")
    if not claims:
        raise ConfigError("sweep=claims: say which claims, such as -m experiment=claims/all")
    for name, claim in claims.items():
        _check_claim(str(name), claim, lab)
    trials, seeds = _sizes(settings, typed)
    making = _Making(lab, [override for override in typed if _is_of_jobs(override)], source, settings.hydra.launcher)
    records = tuple(making.record(str(name), claim) for name, claim in claims.items())
    arms = tuple(making.arms.values())
    return Laboratory(arms, trials, seeds, "trials", None, "seed", "quasi_random", None, "none", lab.form, records)


def _sizes(settings: DictConfig, typed: Sequence[Override]) -> tuple[int, int]:
    """How many trials and fresh runs each arm gets: those of the form, if not typed. Raises ConfigError."""
    fair, form, keys = settings.fair, settings.lab[settings.lab.form], {override.key_or_group for override in typed}
    check_keys(fair, typed, prunes=False)
    for key in ("budget", "over", "sampler"):
        if f"fair.{key}" in keys:
            raise ConfigError(f"fair.{key}={fair[key]}: claims rest on equal trials and fresh seeds; leave it out")
    trials, seeds = (int(fair[key] if f"fair.{key}" in keys else form[key]) for key in ("trials", "seeds"))
    for name, claim in settings.claims.items():
        if seeds < claim.least_seeds:
            raise ConfigError(
                f"fair.seeds={seeds}: the rule of the claim {name} needs {claim.least_seeds}; set fair.seeds="
                f"{claim.least_seeds} or more"
            )
    return trials, seeds


class _Making:
    """Makes the arms of claims, each once: those with the same runs are one."""

    def __init__(self, lab: DictConfig, typed: Sequence[Override], source: ConfigSource, launcher: DictConfig):
        self.lab, self.typed, self.source, self.launcher = lab, typed, source, launcher
        self.arms: dict[tuple[str, str], Arm] = {}  # by the hash of the configuration, and the space

    def record(self, name: str, claim: DictConfig) -> dict[str, Any]:
        """What claims.json says of a claim."""
        plain: Any = OmegaConf.to_container(claim, resolve=True)
        described = {key: plain[key] for key in KEYS if key not in ("pairs", "arms", "effects")}
        further = {key: plain.get(key) or [] for key in FURTHER}
        effects = [{"name": effect, "weights": weights} for effect, weights in plain["effects"].items()]
        pairs = [self._pair(pair, plain["arms"]) for pair in plain["pairs"][: self.lab[self.lab.form].pairs]]
        return {"name": name, **described, **further, "effects": effects, "pairs": pairs}

    def _pair(self, pair: str, arms: Mapping[str, str]) -> dict[str, Any]:
        settings = self.lab.pairs[pair]
        named = {name: self._arm(pair, name, {**_lines(settings), **_lines(arm)}) for name, arm in arms.items()}
        return {"name": pair, "settings": settings, "arms": named}

    def _arm(self, pair: str, name: str, lines: Mapping[str, str]) -> str:
        """The name of an arm of the sweep, which is made where it is not there yet. Raises ConfigError."""
        for override in self.typed:
            if override.key_or_group in lines:
                raise ConfigError(
                    f"{override.input_line}: {override.key_or_group} is set by the claim; leave it out, or write a "
                    "claim of your own"
                )
        rates = lines.get(RATE, self.lab.rates)
        is_tuned = "(" in rates  # an interval, in place of one rate
        settings = {key: value for key, value in lines.items() if not (is_tuned and key == RATE)}
        fixed = (*(f"{key}={value}" for key, value in settings.items()), *lines_of(self.typed))
        composed = compose_job(fixed, self.source)
        check_launcher(self.launcher, composed.config)
        space: Space = {RATE: read_values(RATE, rates)} if is_tuned else {}
        key = config_hash(composed.config), str(space)
        shown = f"{pair}: {name}"
        return self.arms.setdefault(key, Arm(shown, settings, fixed, space, composed, self.source)).name


def _check_claim(name: str, claim: Any, lab: DictConfig) -> None:
    """Raises ConfigError where a claim's file lacks a key, or names what is not there."""
    if not OmegaConf.is_dict(claim):
        raise ConfigError(f"claims.{name}: expected the keys {', '.join(KEYS)}")
    for key in KEYS:
        if not claim.get(key):
            raise ConfigError(f"claims.{name} has no {key}; docs/laboratory.md says what belongs into a claim")
    for key in claim:
        if key not in (*KEYS, *FURTHER):
            raise ConfigError(f"claims.{name}.{key}: a claim has no such key{did_you_mean(str(key), KEYS + FURTHER)}")
    if claim.measure not in MEASURES:
        raise ConfigError(f"claims.{name}.measure={claim.measure}: expected one of {', '.join(MEASURES)}")
    for pair in claim.pairs:
        if pair not in lab.pairs:
            raise ConfigError(f"claims.{name}.pairs: lab.pairs has no {pair}{did_you_mean(pair, [*lab.pairs])}")
    for effect, weights in claim.effects.items():
        for arm in weights:
            if arm not in claim.arms:
                raise ConfigError(
                    f"claims.{name}.effects.{effect}: there is no arm {arm}{did_you_mean(arm, [*claim.arms])}"
                )
        if abs(sum(weights.values())) > 1e-9:
            raise ConfigError(
                f"claims.{name}.effects.{effect}: its weights add up to {sum(weights.values()):g}, not to 0"
            )


def _is_of_jobs(override: Override) -> bool:
    """Whether an override belongs to every job, rather than to the sweep. Raises ConfigError for several values."""
    key = override.get_key_element()
    if override.is_sweep_override():
        raise ConfigError(f"{override.input_line}: a claim has its own arms; leave it out, or compare by sweep=fair")
    if key in (*REPLICATES[1:], "test"):
        raise ConfigError(f"{override.input_line}: a claim's runs are told apart by seed alone; leave it out")
    return not (
        is_hydras(override)
        or is_of_fair(override)
        or key.split(".")[0].lstrip("+") in (*LABORATORY, "experiment", "sweep")
    )


def _lines(text: str) -> dict[str, str]:
    """The overrides in a text, by their keys: `norm=batch data.batch_size=2`."""
    return dict(_split(text))


def _split(text: str) -> Iterator[tuple[str, str]]:
    for override in parse(text.split()):
        assert override.input_line is not None
        key, _, value = override.input_line.partition("=")
        yield key, value
