"""What --help prints: each group, option and key with its line of meaning, read from the yaml files and docstrings."""

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from normlab.config.meanings import Line, option_lines, read_lines
from normlab.config.options import CONF, GROUPS
from normlab.config.overrides import parse, typed_value
from normlab.config.source import ConfigSource

SHOWN = [group for group in GROUPS if group != "local"]
INTERNAL = ("defaults", "_target_", "_partial_", "hydra", "overrides")
WIDTH = 46  # columns of a key with its value; its meaning follows


def help_text(source: ConfigSource, overrides: Sequence[str]) -> str:
    """The help for what was typed: the keys are those of the options that it chooses, and of the defaults else."""
    parsed = parse(overrides)
    config = source.compose(tuple(o.input_line for o in parsed if o.key_or_group in GROUPS and o.input_line))
    chosen: dict[str, Any] = dict(config.hydra.runtime.choices)
    chosen |= {group: typed_value(parsed, group) for group in SHOWN if typed_value(parsed, group) is not None}
    lines = [config.hydra.help.header, "Groups and their options (group=option); * is chosen"]
    for group in SHOWN:
        lines += ["", f"  {group}", *_options(source, group, _listed(chosen.get(group)))]
    lines += ["", "Keys of a run (key=value), with their defaults", ""]
    lines += _rows(read_lines((CONF / "train.yaml").read_text()))
    lines += ["", "Keys of the options that are chosen; --help model=resnet shows those of another"]
    for group in SHOWN:
        for option in _listed(chosen.get(group)) if group not in ("experiment", "sweep") else ():
            rows = [*_rows(option_lines(source, group, option).values(), f"{group}.")]
            lines += ["", *rows] if rows else []
    return "\n".join([*lines, "", config.hydra.help.footer])


def _listed(chosen: Any) -> list[str]:
    return [] if chosen is None else [chosen] if isinstance(chosen, str) else [*map(str, chosen)]


def _options(source: ConfigSource, group: str, chosen: Sequence[str]) -> Iterator[str]:
    for option in source.options(group):
        yield f"  {'*' if option in chosen else ' '} {option:<22} {meaning(source, group, option)}".rstrip()


def meaning(source: ConfigSource, group: str, option: str) -> str:
    """The first comment of an option's file, or the first line that the file of its class says of itself."""
    text = source.text(group, option)
    if comment := re.match(r"(?:# @package .*\n)?# (?!@)(?:Shows: )?(.+)", text):
        return comment[1]
    target = re.search(r"^ *_target_: *(\S+)", text, re.M)
    return "" if target is None else _docstring(target[1]) or target[1]


def _docstring(target: str) -> str:
    """The first line of the module of a class, read without importing it; empty for what is not ours."""
    module = target.rpartition(".")[0]
    spec = find_spec(module) if target.startswith("normlab.") else None
    if spec is None or spec.origin is None:
        return ""
    said = ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or ""
    return said.partition("\n")[0].partition("  python ")[0]


def _rows(lines: Iterable[Line], prefix: str = "") -> Iterator[str]:
    for line in lines:
        if line.value and not {*line.key.split(".")} & {*INTERNAL}:
            comment = line.meaning if line.rule is None else f"[{line.rule}] {line.meaning}"
            yield f"  {f'{prefix}{line.key}={line.value}':<{WIDTH}} {comment}".rstrip()
