"""The jobs of a sweep as Hydra's sweepers and launchers ask for them: composed and checked as single runs are."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from normlab.config.arms import Fair
from normlab.config.compose import compose_job
from normlab.config.source import OURS, ConfigSource
from normlab.config.space import Job

Rehearse = Callable[[DictConfig, Path], tuple[str, str]]  # gives the run's score, and which end of it is the better one
Measure = Callable[[Path, Mapping[int, Sequence[str]]], None]  # takes measures of runs, by their numbers in a folder


class CheckedJobs(ConfigLoaderImpl):
    """Hydra's loader, which composes a job in whatever process it is to run, with our composer in place of Hydra's.

    known: the jobs of a plain sweep, which were looked at before the first starts; a search has none. source: what
    jobs are composed from. fair: what sweep=fair compares. rehearse: builds a run in the sweep's own process.
    measure: what takes measures of its runs there.
    """

    def __init__(
        self,
        known: Sequence[Job],
        source: ConfigSource = OURS,
        fair: Fair | None = None,
        rehearse: Rehearse | None = None,
        measure: Measure | None = None,
    ):
        super().__init__(source.loader.get_search_path())
        self.known, self.source, self.fair = known, source, fair
        self.rehearse, self.measure = rehearse, measure

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets what it composes by: sending all jobs of a large sweep with each took seconds."""
        return CheckedJobs, ((), self.source)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """A job's configuration. Raises ConfigError."""
        hydras: list[str] = OmegaConf.to_container(master_config.hydra.overrides.hydra)  # pyright: ignore
        whole = compose_job([*hydras, *sweep_overrides], self.source).for_hydra()
        whole.hydra.mode = RunMode.MULTIRUN
        OmegaConf.copy_cache(from_config=master_config, to_config=whole)  # ${now:…} stays that of the sweep
        return whole
