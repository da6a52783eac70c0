"""Looks at every job of a sweep before the first starts."""

from collections.abc import Sequence

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig, OmegaConf

from normlab.config.compose import (
    _check_folder,
    _compose,
    _hydra_compose,
    _is_hydras,
    _lines,
    _loader,
    _selections,
    _typed,
    as_typed,
)
from normlab.config.engines import (
    check_launcher,
    check_plain,
    check_search,
    check_sought,
    is_search,
    takes_any_folder,
)
from normlab.config.names import check_name
from normlab.config.space import Job, jobs, parse, probes, search_space
from normlab.errors import ConfigError
from normlab.folder.identity import LENGTH, config_hash


def check_sweep(overrides: Sequence[str]) -> list[Job]:
    """Looks at every job of a sweep before the first starts, and of a search at the ends. Raises ConfigError.

    Returns the jobs of a sweep; those of a search are not known yet.
    """
    found: list[Job] = []
    overrides = as_typed(overrides)
    with _loader() as loader:
        engines = _hydras_own(overrides, loader)
        fixed, space = search_space(overrides, engines.sweeper.get("params"), loader)
        if "sweep" in space:
            raise ConfigError(f"sweep={space['sweep']}: one search at a time")
        if "action" in space or _typed(parse(fixed), "action", "fit") != "fit":
            raise ConfigError("action= with -m: only fits are swept; look at one run at a time")
        searches = is_search(engines.sweeper)
        if searches:
            check_search(engines, space)
        else:
            check_plain(engines.sweeper)
        own = [line for line in fixed if not _is_hydras(parse([line])[0])]
        order = {override.get_key_element(): place for place, override in enumerate(parse(overrides))}
        for number, job in enumerate(probes(own, space) if searches else jobs(own, space)):
            config = _compose(job, loader)[0]
            check_launcher(engines.launcher, config)
            if searches:
                check_sought(engines.sweeper, config)
                continue
            if not takes_any_folder(engines.sweeper):
                _check_folder(config, number)
            longer = config_hash(config, but=LENGTH) if config.extend else None
            typed = sorted(job, key=lambda line: order.get(line.partition("=")[0], -1))
            found.append(Job(tuple(typed), tuple(job[len(own) :]), config_hash(config), longer))
    return found


def _hydras_own(overrides: Sequence[str], loader: ConfigLoader) -> DictConfig:
    """Hydra's own part of the configuration of a sweep: its sweeper and its launcher."""
    chosen = _selections([override for override in parse(overrides) if not override.is_sweep_override()], loader)
    keys = [override for override in chosen if override.key_or_group.startswith("hydra.")]
    plain = OmegaConf.create({"hydra": _hydra_compose(_lines(o for o in chosen if o not in keys), own=True)})
    for override in keys:
        check_name(plain, override.key_or_group, override.is_add())
    return _hydra_compose(_lines(chosen), own=True)
