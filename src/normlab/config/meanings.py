"""What the yaml files of `conf/` say of their keys, in the comment behind each: its rule and its meaning.

    momentum: 0.1 # [from 0 to 1 | null] the share of a new batch in the running statistics

The brackets hold what the value may be, where the type of the default does not say enough: words, and numbers by their
ends (`above 0`, `from 0 to 1`, `whole from 1`, `above 0 below 1`). The rest of the line is for people.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from normlab.config.options import CONF, SEVERAL
from normlab.config.values import Number, Rules, Words
from normlab.errors import ConfigError

KEY = re.compile(r"(?P<indent> *)(?P<key>\w+):(?P<value> (?!#).*?)?(?: # ?(?:\[(?P<rule>[^]]*)\] ?)?(?P<meaning>.*))?")
ENDS = re.compile(
    r"(?P<whole>whole )?(?:(?P<low_kind>from|above) (?P<low>\S+))? ?(?:(?P<high_kind>to|below) (?P<high>\S+))?"
)


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
    try:
        found = dict(_keys((CONF / f"{file}.yaml").read_text().splitlines()))
    except ValueError as error:
        raise ConfigError(f"conf/{file}.yaml: {error}; a comment that is no rule begins without a bracket") from error
    if Path(file).parts[0] in SEVERAL:
        return {key.partition(".")[2]: told for key, told in found.items() if "." in key}
    return found


def parse_rule(text: str) -> Rules:
    """The rule that stands in a comment's brackets. Raises ValueError for one that is none."""
    return tuple(_alternative(part.strip()) for part in text.split(" | "))


def _keys(lines: list[str]) -> Iterator[tuple[str, Key]]:
    above: list[tuple[int, str]] = []  # the keys that a line stands under, with their indents
    for line in lines:
        told = KEY.fullmatch(line)
        if told is None:
            continue
        indent = len(told["indent"])
        above = [(place, key) for place, key in above if place < indent] + [(indent, told["key"])]
        rules = None if told["rule"] is None else parse_rule(told["rule"])
        yield ".".join(key for _, key in above), Key(rules, (told["meaning"] or "").strip())


def _alternative(text: str) -> Number | Words:
    ends = ENDS.fullmatch(text)
    if not text or ends is None or not (ends["low"] or ends["high"]):
        if " " in text or not text:
            raise ValueError(f"[{text}] is no rule: expected words, or numbers such as whole from 1, above 0 below 1")
        return Words([yaml.safe_load(text)])
    given = {name: _number(ends[name]) for name in ("low", "high") if ends[name]}
    return Number(
        **given,
        open_low=ends["low_kind"] == "above",
        open_high=ends["high_kind"] == "below",
        whole=ends["whole"] is not None,
    )


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdecimal() else float(text)
