"""What Hydra composes from: the files of `conf/`, or the config.yaml of a run that is replayed."""

import copy
from dataclasses import dataclass
from functools import cache

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobRuntime, setup_globals
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from normlab.errors import ConfigError

JOB_NAME = "train"  # what Hydra calls a job where it names one, such as in SLURM's queue


@dataclass(frozen=True)
class Source:
    """A folder of configurations, as Hydra writes its address, and the file in it that composing begins with."""

    folder: str = "pkg://normlab.conf"
    primary: str = "train"

    @property
    def loader(self) -> ConfigLoader:
        return _loader(self.folder)

    def options(self, group: str) -> list[str]:
        """The options of a group; each group is listed once, since that takes Hydra long."""
        return _options(self, group)

    def compose(self, selections: tuple[str, ...]) -> DictConfig:
        """What Hydra composes of the lines that are its own to read, with its own part under `hydra`.

        Raises ConfigError.
        """
        return copy.deepcopy(_composed(self, selections))

    def compose_sweep(self, lines: list[str]) -> DictConfig:
        """The configuration of a sweep, which its jobs have in common. Raises ConfigError."""
        return _load(self, lines, RunMode.MULTIRUN)


OURS = Source()


def forget() -> None:
    """Lets the files be read again, which may have changed."""
    _options.cache_clear()
    _composed.cache_clear()


@cache
def _loader(folder: str) -> ConfigLoader:
    setup_globals()
    if version.getbase() is None:  # another program's job may have chosen one
        version.setbase("1.3")
    JobRuntime.instance().set("name", JOB_NAME)
    return ConfigLoaderImpl(create_config_search_path(folder))


@cache
def _options(source: Source, group: str) -> list[str]:
    return source.loader.get_group_options(group)


@cache
def _composed(source: Source, lines: tuple[str, ...]) -> DictConfig:
    return _load(source, [*lines], RunMode.RUN)


def _load(source: Source, lines: list[str], mode: RunMode) -> DictConfig:
    try:
        return source.loader.load_configuration(source.primary, lines, mode, from_shell=False)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(str(error).strip() or str(error.__cause__).strip()) from error
