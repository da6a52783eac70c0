"""Checks every job of a sweep before the first starts."""

from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from normlab.config.arms import Fair, arms_of, check_fair
from normlab.config.claims import is_laboratory, laboratory
from normlab.config.compose import check_folder, check_selections, compose_job, reach
from normlab.config.engines import (
    check_launcher,
    check_plain,
    check_search,
    check_sought,
    is_search,
    takes_any_folder,
)
from normlab.config.fair import is_fair
from normlab.config.names import check_name
from normlab.config.overrides import as_typed, is_hydras, lines_of, parse, typed_value
from normlab.config.source import OURS, ConfigSource
from normlab.config.space import TUNE, Job, jobs, probes, search_space
from normlab.errors import ConfigError
from normlab.folder.identity import LENGTH, config_hash


@dataclass(frozen=True)
class Sweep:
    """A sweep that was checked. settings: what its jobs have in common, with Hydra's own part under `hydra`.

    jobs: the jobs of a plain sweep; empty for a search, which chooses them as it goes. source: what they are composed
    from. fair: what sweep=fair compares; None for others.
    """

    settings: DictConfig
    jobs: list[Job]
    source: ConfigSource
    fair: Fair | None = None


def check_sweep(overrides: Sequence[str], source: ConfigSource = OURS) -> Sweep:
    """Checks every job of a sweep, or for a search jobs at the ends of its space. Raises ConfigError."""
    checked: list[Job] = []
    overrides = as_typed(overrides)
    source = reach(parse(overrides), source)
    engines = _hydras_own(overrides, source)
    if is_laboratory(engines.sweeper):
        settings = source.compose_sweep(overrides)
        return Sweep(settings, [], source, laboratory(settings, parse(overrides), source))
    fair = is_fair(engines.sweeper)
    tags = (TUNE,) if fair else ()
    fixed, space = search_space(overrides, engines.sweeper.get("params"), source.loader, tags)
    if "sweep" in space:
        raise ConfigError(f"sweep={space['sweep']}: one search at a time")
    if "action" in space or typed_value(parse(fixed), "action", "fit") != "fit":
        raise ConfigError("action= with -m: only fits are swept; look at one run at a time")
    if "replay" in space or typed_value(parse(fixed), "replay") is not None:
        raise ConfigError("replay= with -m: one run is repeated at a time; leave out -m")
    if fair:
        arms = arms_of(fixed, space, source)
        settings = source.compose_sweep(overrides)
        return Sweep(settings, [], source, check_fair(arms, settings, parse(overrides)))
    searches = is_search(engines.sweeper)
    if searches:
        check_search(engines, space)
    else:
        check_plain(engines.sweeper)
    common = [line for line in fixed if not is_hydras(parse([line])[0])]
    order = {override.get_key_element(): number for number, override in enumerate(parse(overrides))}
    for number, job in enumerate(probes(common, space) if searches else jobs(common, space)):
        config = compose_job(job, source).config
        check_launcher(engines.launcher, config)
        if searches:
            check_sought(engines.sweeper, config)
            continue
        if not takes_any_folder(engines.sweeper):
            check_folder(config, number)
        longer = config_hash(config, but=LENGTH) if config.extend else None
        typed = sorted(job, key=lambda line: order.get(line.partition("=")[0], -1))
        checked.append(Job(tuple(typed), tuple(job[len(common) :]), config_hash(config), longer))
    return Sweep(source.compose_sweep(overrides), checked, source)


def _hydras_own(overrides: Sequence[str], source: ConfigSource) -> DictConfig:
    """Hydra's own part of the configuration of a sweep: its sweeper and its launcher."""
    fixed = [override for override in parse(overrides) if not override.is_sweep_override()]
    chosen = check_selections(fixed, source)
    keys = [override for override in chosen if override.key_or_group.startswith("hydra.")]
    plain = OmegaConf.create({"hydra": source.compose(lines_of(o for o in chosen if o not in keys)).hydra})
    for override in keys:
        check_name(plain, override.key_or_group, override.is_add())
    return source.compose(lines_of(chosen)).hydra
