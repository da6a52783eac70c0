"""What --help prints: each group, option and key with its line of meaning, read from the yaml files and docstrings."""

import ast
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from normlab.config.options import CONF, GROUPS
from normlab.config.overrides import parse, typed_value
from normlab.config.source import ConfigSource

SHOWN = [group for group in GROUPS if group != "local"]
KEY = re.compile(r"^( *)(\w+): *([^#]*?) *(?:# (.*))?$")
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
    lines += [
        "",
        "Keys of a run (key=value), with their defaults",
        "",
        *_rows(_keys((CONF / "train.yaml").read_text())),
    ]
    lines += ["", "Keys of the options that are chosen; --help model=resnet shows those of another"]
    for group in SHOWN:
        for option in _listed(chosen.get(group)) if group not in ("experiment", "sweep") else ():
            rows = [*_rows(_option_keys(source, group, option), f"{group}.")]
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


def _option_keys(source: ConfigSource, group: str, option: str) -> Iterator[tuple[str, str, str]]:
    """The keys of an option, with those of the files that it includes; a value of its own takes the place of theirs."""
    text = source.text(group, option)
    listed = re.search(r"^defaults: \[(.*)\]", text, re.M)
    names = [name.strip().removesuffix("@_here_") for name in listed[1].split(",")] if listed else []
    rows: dict[str, tuple[str, str, str]] = {}
    for name in names:
        if name != "_self_":
            rows |= {row[0]: row for row in _option_keys(source, *f"{group}/{name}".rsplit("/", 1))}
    for key, value, said in _keys(text):
        rows[key] = (key, value, said or rows.get(key, ("", "", ""))[2])
    yield from rows.values()


def _keys(text: str) -> Iterator[tuple[str, str, str]]:
    """(key, value, meaning) of each line of a yaml file that sets a key; keys of keys are dotted."""
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        found = KEY.match(line)
        if found is None:
            continue
        indent, name, value, said = len(found[1]), found[2], found[3], found[4] or ""
        above = [(depth, key) for depth, key in above if depth < indent]
        path = [key for _, key in above] + [name]
        above.append((indent, name))
        if value and not any(key in INTERNAL for key in path):
            yield ".".join(path), value, said


def _rows(keys: Iterator[tuple[str, str, str]], prefix: str = "") -> Iterator[str]:
    for key, value, said in keys:
        yield f"  {f'{prefix}{key}={value}':<{WIDTH}} {said}".rstrip()
