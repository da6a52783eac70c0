"""The words of a command line, read with Hydra's grammar: `group=option` selects a file, `key=value` sets a value."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from normlab.config.options import GROUPS
from normlab.errors import ConfigError

TEXT = (
    "name",
    "ckpt",
    "input",
    "replay",
    "data.path",
    "data.root",
)  # keys whose values stay as they are typed: 1_0, 1e3, true


def parse(lines: Iterable[str], loader: ConfigLoader | None = None) -> list[Override]:
    """The overrides in some lines; `glob(…)` needs the loader. Raises ConfigError."""
    return [override for line in lines for override in (_known(line) if loader is None else _read(line, loader))]


@lru_cache(maxsize=4096)  # composing asks for the same lines again and again, and Hydra's grammar takes long
def _known(line: str) -> list[Override]:
    return _read(line, None)


def _read(line: str, loader: ConfigLoader | None) -> list[Override]:
    try:
        return OverridesParser.create(loader).parse_overrides([line])
    except HydraException as error:
        remedy = "quote the value twice: 'key=\"value\"'" if "=" in line else "is it part of a value? 'key=two words'"
        raise ConfigError(f"{line}: expected group=option or key=value; {remedy}") from error


def as_typed(lines: Iterable[str]) -> list[str]:
    """The same lines, with names and paths in quotes where Hydra would take them for numbers or for true and false."""
    return [_quoted(line) for line in lines]


def typed_value(parsed: Iterable[Override], key: str, default: Any = None) -> Any:
    """The value that was typed last for a key."""
    values = [override.value() for override in parsed if override.key_or_group == key]
    return values[-1] if values else default


def lines_of(overrides: Iterable[Override]) -> tuple[str, ...]:
    """The overrides as they were typed."""
    return tuple(override.input_line for override in overrides if override.input_line)


def is_selection(override: Override) -> bool:
    """True for `group=option`, false for `key=value`."""
    return (override.key_or_group in GROUPS and not isinstance(override.value(), dict)) or override.is_delete()


def is_hydras(override: Override) -> bool:
    """Whether an override belongs to Hydra itself, as of its launcher, sweeper or folders."""
    return override.key_or_group.split("/")[0].split(".")[0] == "hydra"


def _quoted(line: str) -> str:
    key, equals, value = line.partition("=")
    if not equals or key.lstrip("+") not in TEXT or not isinstance(parse([line])[0].value(), bool | int | float):
        return line
    return f"{key}='{value}'"
