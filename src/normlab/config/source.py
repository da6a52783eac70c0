"""What Hydra composes from: the files of `conf/`, or the config.yaml of a run that is replayed.

Folders of options that a person has beside ours, by `--config-dir` or `hydra.searchpath`, add to either.
"""

import copy
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.object_type import ObjectType
from hydra.core.utils import JobRuntime, setup_globals
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from normlab.config.options import GROUPS
from normlab.errors import ConfigError

JOB_NAME = "train"  # what Hydra calls a job where it names one, such as in SLURM's queue


@dataclass(frozen=True)
class ConfigSource:
    """A folder of configurations, as Hydra writes its address, and the file in it that composing begins with.

    added: the addresses of further folders, with options of a person's own.
    """

    folder: str = "pkg://normlab.conf"
    primary: str = "train"
    added: tuple[str, ...] = ()

    @property
    def loader(self) -> ConfigLoaderImpl:
        return _loader(self.folder, self.added)

    def also(self, folders: Iterable[str], typed: str) -> "ConfigSource":
        """This source with further folders of options. typed: the key that names them.

        Raises ConfigError for a folder that is not there, and for an option in it that is called like one of ours.
        """
        new = tuple(_address(folder) for folder in folders)
        for address, folder in zip(new, folders, strict=True):
            _check_added(address, f"{typed}={folder}")
        return replace(self, added=tuple(dict.fromkeys([*self.added, *new])))

    def read(self, group: str, option: str) -> Any:
        """The yaml file of an option as plain values, not composed; {} for an empty one."""
        loaded = self.loader.repository.load_config(f"{group}/{option}")
        assert loaded is not None
        return OmegaConf.to_container(loaded.config)

    def options(self, group: str) -> list[str]:
        """The options of a group; each group is listed once, since that takes Hydra long."""
        return _options(self, group)

    def text(self, group: str, option: str) -> str:
        """The yaml file of an option as it is written, with its comments."""
        name = f"{group}/{option}"
        place = next(each for each in self.loader.repository.get_sources() if each.is_config(name))
        folder = files(place.path.replace("/", ".")) if place.scheme() == "pkg" else Path(place.path)
        return folder.joinpath(f"{name}.yaml").read_text()

    def compose(self, selections: tuple[str, ...]) -> DictConfig:
        """What Hydra composes of the lines that are its own to read, with its own part under `hydra`.

        Raises ConfigError.
        """
        return copy.deepcopy(_composed(self, selections))

    def compose_sweep(self, lines: list[str]) -> DictConfig:
        """The configuration of a sweep, which its jobs have in common. Raises ConfigError."""
        return _load(self, lines, RunMode.MULTIRUN)


OURS = ConfigSource()


def forget() -> None:
    """Lets the files be read again, which may have changed."""
    _loader.cache_clear()
    _options.cache_clear()
    _composed.cache_clear()


class _PackagesReadOnce(ConfigRepository):
    """The files of packages are read once; Hydra reads all files anew for each composition.

    Those of other folders may change while a process lives: options that somebody works on, configurations of runs.
    """

    def __init__(self, path: ConfigSearchPath):
        self.of_packages: dict[str, ConfigResult] = {}
        super().__init__(path)

    def __deepcopy__(self, memo: Any) -> "_PackagesReadOnce":  # Hydra's for one composition, which may add folders
        return copy.copy(self)

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        """Looks in these folders from now on."""
        super().initialize_sources(config_search_path)
        self.of_packages = {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        """A file's content for the caller alone, since Hydra puts parts of it into what it composes."""
        if config_path in self.of_packages:
            return copy.deepcopy(self.of_packages[config_path])
        found = super().load_config(config_path)
        if found is not None and found.path.startswith("pkg://"):
            self.of_packages[config_path] = copy.deepcopy(found)
        return found


@cache
def _loader(folder: str, added: tuple[str, ...]) -> ConfigLoaderImpl:
    setup_globals()
    if version.getbase() is None:  # another program's job may have chosen one
        version.setbase("1.3")
    JobRuntime.instance().set("name", JOB_NAME)
    path = create_config_search_path(folder)
    for address in added:
        path.prepend("added", address, anchor=SearchPathQuery(provider="schema"))  # the first that has a file is taken
    loader = ConfigLoaderImpl(path)
    loader.repository = _PackagesReadOnce(path)
    return loader


def _address(folder: str) -> str:
    """A folder as Hydra writes it, the same from wherever it is looked at."""
    scheme, separator, path = folder.rpartition("://")
    return f"{scheme}{separator}{path}" if scheme not in ("", "file") else f"file://{os.path.abspath(path)}"


def _check_added(address: str, typed: str) -> None:
    path = create_config_search_path(None)
    path.prepend("added", address, anchor=SearchPathQuery(provider="schema"))
    folder = next(one for one in ConfigRepository(path).get_sources() if one.provider == "added")
    if not folder.available():
        raise ConfigError(f"{typed}: there is no such folder of options")
    for group in GROUPS:
        theirs = folder.list(group, ObjectType.CONFIG) if folder.is_group(group) else []
        for option in sorted({*theirs} & {*OURS.options(group)}):
            raise ConfigError(f"{typed}: normlab has a {group}={option} too; give {group}/{option}.yaml another name")


@cache
def _options(source: ConfigSource, group: str) -> list[str]:
    """A folder in a group holds further options, as claims/rate of experiment; `common` holds what options include."""
    folders = source.loader.get_group_options(group, ObjectType.GROUP)
    inner = [
        f"{each}/{option}" for each in folders if each != "common" for option in _options(source, f"{group}/{each}")
    ]
    return [*source.loader.get_group_options(group), *inner]


@cache
def _composed(source: ConfigSource, lines: tuple[str, ...]) -> DictConfig:
    return _load(source, [*lines], RunMode.RUN)


def _load(source: ConfigSource, lines: list[str], mode: RunMode) -> DictConfig:
    try:
        return source.loader.load_configuration(source.primary, lines, mode, from_shell=False)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(str(error).strip() or str(error.__cause__).strip()) from error
