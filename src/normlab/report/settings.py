"""The settings of runs: the keys in which they differ, with each run's values."""

import json
from collections.abc import Hashable, Sequence
from functools import cache
from typing import Any

import pandas as pd

from normlab.folder.identity import ELSEWHERE, ONCE, REPLICATES, RUN_KEYS, TRAINER_KEYS
from normlab.report.runs import LOADER, Run, read_yaml

# Typed keys that change nothing in the network, or name the run.
NO_SETTINGS = ("name", "action", "ckpt", "input", "extend", "sweep", "logger", *REPLICATES, *ELSEWHERE, *ONCE)
# Scores on different data are not compared, nor those on other samples of it.
DATA_KEYS = (
    *("data", "data.path", "data.name", "data._target_", "data.id", "data.version", "data.target", "data.samples"),
    *("data.val_path", "data.val_fraction", "data.test_fraction", "data.folds"),
)

DIGITS = 5  # of a number that is shown, unless two configurations would look alike
MOST_DIGITS = 10  # of a number that is compared

Settings = dict[str, str]


def settings_of(runs: Sequence[Run]) -> list[Settings]:
    """The value of each differing key, for each run.

    These are the keys that were typed. Runs may differ although the same was typed, as by another version's defaults or
    an edited yaml; then the differing keys of config.yaml are added.
    """
    flat = _flat(runs)
    typed = [_typed(run) for run in runs]
    keys = [key for key in dict.fromkeys(key for line in typed for key in line) if _is_setting(key)]
    whole = [{key: _value(key, t, f) for key in keys} for t, f in zip(typed, flat, strict=True)]
    differing = [key for key in keys if len({settings[key] for settings in whole}) > 1]
    by_run = [{key: settings[key] for key in differing} for settings in whole]
    for key in _hidden(by_run, flat):
        for settings, values in zip(by_run, flat, strict=True):
            settings[key] = as_text(values.get(key, ""))
    return by_run


def common(runs: Sequence[Run], swept: Sequence[str]) -> Settings:
    """The settings that were typed for all runs alike."""
    first, *others = [set(_typed(run).items()) for run in runs]
    return {key: value for key, value in sorted(first.intersection(*others)) if _is_setting(key) and key not in swept}


def option(run: Run, group: str) -> str:
    """The option of a group that a run was made with, such as `batch` of norm; of another class, the class's name."""
    typed, part = _typed(run), run.config.get(group)
    if group in typed and f"{group}._target_" not in typed:
        return typed[group]
    return _option(group, part) if part else _defaults().get(group, "")


def label(settings: Settings, digits: int = DIGITS) -> str:
    """A configuration in few words: `group · mynet · lr=0.1`; the options of groups go without their group."""
    words = [
        shortened(value, digits) if "." not in key else f"{key.rpartition('.')[2]}={shortened(value, digits)}"
        for key, value in settings.items()
    ]
    return " · ".join(words) or "One configuration"


def shortened(value: str, digits: int = DIGITS) -> str:
    """A drawn number to a few digits; summary.csv and commands have all."""
    try:
        return f"{float(value):.{digits}g}" if len(value) > digits + 3 else value
    except ValueError:
        return value


def telling_digits(configurations: Sequence[Settings]) -> int:
    """The fewest digits of numbers, from DIGITS on, with which no two of the configurations are shown alike."""
    for digits in range(DIGITS, MOST_DIGITS):
        shown = {tuple(shortened(value, digits) for value in settings.values()) for settings in configurations}
        if len(shown) == len(configurations):
            return digits
    return MOST_DIGITS


def spelled(settings: Settings) -> str:
    """A configuration as it is typed: `norm=group model=mynet`."""
    return " ".join(f"{key}={value}" for key, value in settings.items()) or "the one configuration"


def _typed(run: Run) -> Settings:
    """The settings that were typed; where a run does not record them, the options its config.yaml was composed from."""
    if not run.overrides:
        return {group: _option(group, part) for group in _defaults() if (part := run.config.get(group))}
    lines = (line.lstrip("+").partition("=") for line in run.overrides if "=" in line)
    return {key: as_text(value) for key, _, value in lines}


def _is_setting(key: str) -> bool:
    return key not in NO_SETTINGS and key.split("/")[0].split(".")[0] not in ("hydra", "logger")


def _value(key: str, typed: Settings, flat: Settings) -> str:
    """A key's value from config.yaml, or a group's option from the command line or the defaults list."""
    return flat.get(key) or typed.get(key) or _defaults().get(key, "default")


def _option(group: str, part: Any) -> str:
    """The option of a group that has a part's class and most of its values; the class itself where none has."""
    from normlab.config.options import CONF  # it imports Hydra, which takes a while

    target = part.get("_target_") if isinstance(part, dict) else None
    files = sorted((CONF / group).glob("*.yaml")) if target else []
    options = {file.stem: keys for file in files if (keys := read_yaml(file)).get("_target_") == target}
    alike = {name: sum(part.get(key) == value for key, value in keys.items()) for name, keys in options.items()}
    return max(alike, key=lambda name: alike[name]) if alike else str(target).rpartition(".")[2] if target else "none"


@cache
def _defaults() -> Settings:
    from normlab.config.options import CONF

    listed = LOADER((CONF / "train.yaml").read_text()).get_single_data()["defaults"]
    return {key: str(value) for line in listed if isinstance(line, dict) for key, value in line.items()}


def _flat(runs: Sequence[Run]) -> list[Settings]:
    """config.yaml's plain values under dotted keys, for the parts that decide the trained weights."""
    parts = [{key: run.config.get(key) for key in RUN_KEYS if run.config.get(key) is not None} for run in runs]
    trainers = [run.config.get("trainer") or {} for run in runs]
    kept = [{key: trainer[key] for key in TRAINER_KEYS if key in trainer} for trainer in trainers]
    frame = pd.json_normalize([part | {"trainer": keys} for part, keys in zip(parts, kept, strict=True)])
    rows = frame.to_dict("records")
    return [{str(k): as_text(v) for k, v in row.items() if isinstance(v, list) or pd.notna(v)} for row in rows]


def _hidden(by_run: Sequence[Settings], flat: Sequence[Settings]) -> list[str]:
    """Keys that differ between runs for which the same was typed; a key that a run lacks does not differ."""
    groups: dict[Hashable, list[Settings]] = {}
    for settings, values in zip(by_run, flat, strict=True):
        groups.setdefault(tuple(settings.items()), []).append(values)
    hidden = {}
    for group in groups.values():
        seen: dict[str, set[str]] = {}
        for run in group:
            for key, value in run.items():
                seen.setdefault(key, set()).add(value)
        hidden |= {key: None for key, distinct in seen.items() if len(distinct) > 1}
    return [key for key in hidden if _is_setting(key) and key not in by_run[0]]


def as_text(value: Any) -> str:
    """A value as text, in which 0.1, 0.10 and 1e-1 are the same."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, list | dict):
        return json.dumps(value)
    try:
        return f"{float(value):.{MOST_DIGITS}g}"
    except ValueError:
        return str(value).strip("'\"")
