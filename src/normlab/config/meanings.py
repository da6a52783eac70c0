"""What the yaml files of `conf/` say of their keys, in the comment behind each: its rule and its meaning.

    momentum: 0.1 # [from 0 to 1 | null] the share of a new batch in the running statistics

The brackets hold what the value may be, where the type of the default does not say enough: words, and numbers by their
ends (`above 0`, `from 0 to 1`, `whole from 1`, `above 0 below 1`); `interval` is for 10min or 500steps. The rest
is for people.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import yaml

from normlab.config.options import CONF, SEVERAL
from normlab.config.source import ConfigSource
from normlab.config.values import Intervals, Range, Rules, Words
from normlab.errors import ConfigError

KEY = re.compile(r"(?P<indent> *)(?P<key>\w+):(?P<value> (?!#).*?)?(?: # ?(?:\[(?P<rule>[^]]*)\] ?)?(?P<meaning>.*))?")
INCLUDED = re.compile(r"(?!_self_)([\w/]+)(?:@_here_)?")  # an entry of a defaults list that adds keys to the same part
ENDS = re.compile(
    r"(?P<whole>whole )?(?:(?P<low_kind>from|above) (?P<low>\S+))? ?(?:(?P<high_kind>to|below) (?P<high>\S+))?"
)


@dataclass(frozen=True)
class Line:
    """A line of a yaml file that sets a key; its comment is `[rule] meaning`. key: dotted, under the keys above it."""

    key: str
    value: str
    rule: str | None
    meaning: str


@dataclass(frozen=True)
class Key:
    """What a yaml file says of a key. rules: None where the type of the default is all."""

    rules: Rules | None
    meaning: str


@cache
def keys_of(file: str) -> dict[str, Key]:
    """The keys of `conf/<file>.yaml`, dotted where they are nested; of a callback or logger without its name.

    Raises ConfigError for brackets that hold no rule.
    """
    lines = read_lines((CONF / f"{file}.yaml").read_text())
    keys = {line.key: Key(rules_of(line, f"conf/{file}.yaml"), line.meaning) for line in lines}
    if Path(file).parts[0] in SEVERAL:
        return {name.partition(".")[2]: key for name, key in keys.items() if "." in name}
    return keys


def rules_of(line: Line, file: str) -> Rules | None:
    """What the brackets of a line hold; None where it has none. Raises ConfigError where that is no rule."""
    try:
        return None if line.rule is None else parse_rule(line.rule)
    except ValueError as error:
        raise ConfigError(f"{file}: {error}; a comment that is no rule begins without a bracket") from error


def parse_rule(text: str) -> Rules:
    """The rule that stands in a comment's brackets. Raises ValueError for one that is none."""
    return tuple(_alternative(alternative.strip()) for alternative in text.split(" | "))


def read_lines(text: str) -> Iterator[Line]:
    """The lines of a yaml file that set a key."""
    above: list[tuple[int, str]] = []  # the keys that a line stands under, with their indents
    for written in text.splitlines():
        match = KEY.fullmatch(written)
        if match is None:
            continue
        indent = len(match["indent"])
        above = [(place, key) for place, key in above if place < indent] + [(indent, match["key"])]
        dotted = ".".join(key for _, key in above)
        yield Line(dotted, (match["value"] or "").strip(), match["rule"], (match["meaning"] or "").strip())


def option_lines(source: ConfigSource, group: str, option: str) -> dict[str, Line]:
    """The lines of an option by key, with those of the files that it includes.

    A value of its own takes the place of theirs, and so does a comment of its own.
    """
    text = source.text(group, option)
    lines: dict[str, Line] = {}
    for entry in (yaml.safe_load(text) or {}).get("defaults", []):
        if isinstance(entry, str) and (included := INCLUDED.fullmatch(entry)):
            lines |= option_lines(source, *f"{group}/{included[1]}".rsplit("/", 1))
    for line in read_lines(text):
        said = line if line.rule or line.meaning else lines.get(line.key, line)
        lines[line.key] = replace(line, rule=said.rule, meaning=said.meaning)
    return lines


def _alternative(text: str) -> Range | Words | Intervals:
    if text == "interval":
        return Intervals()
    ends = ENDS.fullmatch(text)
    if not text or ends is None or not (ends["low"] or ends["high"]):
        if " " in text or not text:
            raise ValueError(f"[{text}] is no rule: expected words, or numbers such as whole from 1, above 0 below 1")
        return Words([yaml.safe_load(text)])
    given = {name: _number(ends[name]) for name in ("low", "high") if ends[name]}
    return Range(
        **given,
        open_low=ends["low_kind"] == "above",
        open_high=ends["high_kind"] == "below",
        whole=ends["whole"] is not None,
    )


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdecimal() else float(text)
