"""--help says in a line what each option and key means; dir(normlab) shows the public names."""

import re
import sys

import pytest

import normlab
from normlab import app
from normlab.config.help import help_text, meaning
from normlab.config.options import GROUPS, options
from normlab.config.source import OURS


def test_dir_shows_the_public_names_and_only_those():
    assert dir(normlab) == sorted(normlab.__all__)
    assert all(getattr(normlab, name) is not None for name in dir(normlab))


@pytest.mark.parametrize("group", [group for group in GROUPS if group != "local"])
def test_every_option_has_its_line_and_no_internal_group_is_there(group):
    lines = [line.removeprefix("  * ").strip() for line in help_text(OURS, []).splitlines()]
    assert group in lines
    assert not {"local", "common", "data/common"} & {*lines}
    for option in options(group):
        said = meaning(OURS, group, option)
        assert said or option == "none", (group, option)
        assert f"{option:<22} {said}".rstrip() in lines


def test_keys_are_those_of_the_chosen_options_with_what_they_mean():
    shown = help_text(OURS, ["model=resnet", "data=csv", "trainer=debug"]).splitlines()
    for key, said in (
        ("seed=0", ""),
        ("nonfinite=raise", "a training batch with a loss of NaN or inf"),
        ("task.metrics=null", "others of torchmetrics"),
        ("data.target=???", "the column to learn"),
        ("data.delimiter=null", "found, of comma"),
        ("data.batch_size=64", "samples"),
        ("model.depth=", ""),
        ("trainer.max_epochs=1", "passes over the training part"),
        ("trainer.precision=", ""),
        ("logger.tensorboard.name=tensorboard", ""),
    ):
        (line,) = [line for line in shown if line.strip().startswith(key)]
        assert said in line
    assert not any(re.search(r"(_target_|_partial_|defaults|overrides)=", line) for line in shown)


def test_the_command_prints_it_without_importing_torch(monkeypatch, capsys, tmp_path):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "own.yaml").write_text(
        "# A network of mine.\n_target_: own.Net\nwidth: 3 # features\n"
    )
    monkeypatch.setattr(sys, "argv", ["normlab", "--help", "--config-dir", str(tmp_path / "mine"), "model=own"])
    with pytest.raises(SystemExit) as end:
        app.main()
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for text in ("  * own                    A network of mine.", "model.width=3", "features", "Exit codes"):
        assert text in shown
