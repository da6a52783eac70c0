"""Ranges of configuration values: each binds the part whose yaml file has the key, and no other."""

from typing import Any

import pytest
from helpers.cases import options
from omegaconf import OmegaConf

from normlab.config import meanings
from normlab.config.compose import compose
from normlab.config.meanings import keys_of, parse_rule
from normlab.config.options import CONF, GLOBAL, GROUPS
from normlab.config.rules import rule
from normlab.config.values import check_value
from normlab.errors import ConfigError

FILES = [str(path.relative_to(CONF).with_suffix("")) for path in sorted(CONF.rglob("*.yaml"))]
FILES = [file for file in FILES if file.split("/")[0] not in GLOBAL and not file.startswith("hydra/help/")]
FIELDS = sorted({field for file in FILES for field, told in keys_of(file).items() if told.rules is not None})
PART_GROUPS = [group for group in GROUPS if group not in (*GLOBAL, "callbacks", "logger", "trainer")]


def plain(path) -> Any:
    return OmegaConf.to_container(OmegaConf.load(path)) or {}


def stated(file):
    return {field: told.rules for field, told in keys_of(file).items() if told.rules is not None}


def includes(file):
    """The files that a file takes its other keys from, and those that they include."""
    for entry in plain(CONF / f"{file}.yaml").get("defaults", []):
        if isinstance(entry, str) and entry != "_self_" and file != "train":
            other = f"{file.rpartition('/')[0]}/{entry.split('@')[0]}"
            yield from (other, *includes(other))


def value_of(keys, file, field):
    """The value of a rule's key in its file; KeyError where it is not there."""
    if file.startswith("callbacks/"):  # under the callback's name
        (keys,) = keys.values()
    for name in field.split("."):
        keys = keys[name]
    return keys


def test_every_default_satisfies_its_own_rule():
    """A rule that refuses a shipped default would refuse a person who types it."""
    checked = 0
    for file in FILES:
        for field, told in keys_of(file).items():
            if told.rules is not None:
                check_value(field, value_of(plain(CONF / f"{file}.yaml"), file, field), None, told.rules)
                checked += 1
    assert checked > 150


@pytest.mark.parametrize("file", FILES)
def test_every_key_of_a_yaml_file_has_a_meaning(file):
    """A file that includes others may leave it to them."""
    included = [keys_of(other) for other in includes(file)]
    for field, told in keys_of(file).items():
        if field.rpartition(".")[2].startswith("_") or field.split(".")[0] in ("defaults", "hydra"):
            continue
        meanings = [told.meaning, *(keys[field].meaning for keys in included if field in keys)]
        assert any(len(meaning) > 3 for meaning in meanings), field


@pytest.mark.parametrize(
    ("text", "allowed", "refused"),
    [
        ("whole from 1", [1, 7], [0, 1.5, True, "1", None]),
        ("from 0 to 1", [0, 0.5, 1], [-0.1, 1.1, "x"]),
        ("above 0 below 1", [0.001, 0.999], [0, 1]),
        ("above 0 to 1e-3 | null", [1e-3, None], [0, 0.1]),
        ("to 3", [-9, 3], [3.5]),
        ("whole from -2", [-2], [-3]),
        ("auto | true | 3 | -1", ["auto", True, 3, -1], ["true", 1, False, None, 4]),
        ('. | ","', [".", ","], [";", None]),
    ],
)
def test_a_rule_says_which_values_it_allows(text, allowed, refused):
    rules = parse_rule(text)
    for value in allowed:
        check_value("key", value, None, rules)
    for value in refused:
        with pytest.raises(ConfigError, match="key="):
            check_value("key", value, None, rules)


def test_the_yaml_file_of_a_new_part_states_its_rules(tmp_path, monkeypatch):
    monkeypatch.setattr(meanings, "CONF", tmp_path)
    (tmp_path / "norm").mkdir()
    (tmp_path / "norm" / "good.yaml").write_text(
        "# of a paper\n_target_: mine.Good\nwidth: 8 # [whole from 2] how wide it is\nlist: [a, b] # of names\n"
        'inner: # what is inside\n  mark: "#" # a sign\n'
    )
    told = keys_of("norm/good")
    assert told["width"] == meanings.Key(parse_rule("whole from 2"), "how wide it is")
    assert [told[key].meaning for key in ("list", "inner", "inner.mark")] == ["of names", "what is inside", "a sign"]
    (tmp_path / "norm" / "bad.yaml").write_text("width: 8 # [0, 1] how wide it is\n")
    with pytest.raises(ConfigError, match=r"conf/norm/bad.yaml: \[0, 1\] is no rule: expected words, or numbers such"):
        keys_of("norm/bad")


@pytest.mark.parametrize("group", PART_GROUPS)
def test_a_rule_binds_the_parts_that_have_its_file_and_no_other(group):
    bound = 0
    for option in options(group):
        keys = plain(CONF / group / f"{option}.yaml")
        included = [f"{group}/{name.split('@')[0]}" for name in keys.get("defaults", []) if "@_here_" in name]
        own = [stated(file) for file in (f"{group}/{option}", *included)]
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


def test_what_an_experiment_has_set_can_be_set_back(conf):
    (conf / "experiment" / "mine.yaml").write_text("# @package _global_\nfreeze: [conv1]\nscore: val/loss\n")
    assert compose(["experiment=mine"]).freeze == ["conv1"]
    config = compose(["experiment=mine", "freeze=null", "score=null"])
    assert (config.freeze, config.score) == (None, None)
    assert compose(["experiment=mine", "freeze=backbone"]).freeze == "backbone"
