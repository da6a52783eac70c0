"""Ranges of configuration values: each binds the part whose yaml file has the key, and no other."""

from typing import Any

import pytest
from conftest import options
from omegaconf import OmegaConf

from normlab.config.compose import compose
from normlab.config.options import CONF, GLOBAL, GROUPS
from normlab.config.rules import RULES, rule
from normlab.config.values import check_value
from normlab.errors import ConfigError

FIELDS = sorted({field for rules in RULES.values() for field in rules})
PART_GROUPS = [group for group in GROUPS if group not in (*GLOBAL, "callbacks", "logger", "trainer")]


def plain(path) -> Any:
    return OmegaConf.to_container(OmegaConf.load(path)) or {}


def value_of(keys, file, field):
    """The value of a rule's key in its file; KeyError where it is not there."""
    if file.startswith("callbacks/"):  # under the callback's name
        (keys,) = keys.values()
    for name in field.split("."):
        keys = keys[name]
    return keys


def test_every_default_satisfies_its_own_rule():
    """And is in its file: a rule that refuses a shipped default would refuse a person who types it."""
    checked = 0
    for file, rules in RULES.items():
        keys = plain(CONF / f"{file}.yaml")
        for field, its in rules.items():
            check_value(field, value_of(keys, file, field), None, its)
            checked += 1
    assert checked > 100


@pytest.mark.parametrize("group", PART_GROUPS)
def test_a_rule_binds_the_parts_that_have_its_file_and_no_other(group):
    bound = 0
    for option in options(group):
        keys = plain(CONF / group / f"{option}.yaml")
        included = [f"{group}/{name.split('@')[0]}" for name in keys.get("defaults", []) if "@_here_" in name]
        own = [RULES.get(file, {}) for file in (f"{group}/{option}", *included)]
        for field in FIELDS:
            expected = next((rules[field] for rules in own if field in rules), None)
            assert rule(f"{group}.{field}", keys["_target_"]) == expected, (option, field)
            bound += expected is not None
    assert bound


@pytest.mark.parametrize("group", PART_GROUPS)
def test_no_rule_binds_a_part_of_a_persons_own(group):
    """Whatever it calls its keys: another network's depth is none of ResNet's."""
    fields = [field for field in FIELDS if "." not in field]
    config = compose(
        ["scheduler=none", f"{group}._target_=mine.Part", *(f"++{group}.{field}=-7.5" for field in fields)]
    )
    assert dict(config[group]) == {"_target_": "mine.Part"} | dict.fromkeys(fields, -7.5) | (
        {"_partial_": True} if group in ("optimizer", "scheduler") else {}
    )


@pytest.mark.parametrize(
    "line", ["seed: -1", "trainer: {max_epochs: 0}", "optimizer: {lr: abc}", "data: {channels: 2}"]
)
def test_a_rule_binds_what_an_experiment_says(conf, line):
    (conf / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{line}\n")
    with pytest.raises(ConfigError, match="expected"):
        compose(["experiment=mine"])
