"""Options and modules of a person's own, in folders that normlab does not know, are used as ours are."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.cases import ROOT

from normlab import app, compose
from normlab.errors import ConfigError
from normlab.runner import run as running

NETS = '''
from torch import nn

class Plain(nn.Sequential):
    """It takes neither norm nor input_shape."""
    def __init__(self, width: int, out_features: int):
        super().__init__(nn.Linear(13, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, out_features))
'''
PLAIN = ["model=plain", "--config-dir", "mine"]
SHORT = ["data=wine", "trainer=debug", "logger=none", "name=a"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with a module and a folder of options for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("own_nets.py").write_text(NETS)
    write("mine/model/plain.yaml", "_target_: own_nets.Plain\nwidth: 8\n")
    yield tmp_path
    sys.modules.pop("own_nets", None)


def write(file: str, text: str) -> None:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(text)


def command(monkeypatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["normlab", *words])
    with pytest.raises(SystemExit) as end:
        app.main()
    return end.value.code


def result(folder: str) -> dict:
    return json.loads(Path("outputs", folder, "result.json").read_text())


def test_a_run_of_own_parts_is_trained_looked_at_and_trained_on(place, monkeypatch, capsys):
    assert command(monkeypatch, *SHORT, *PLAIN, "model.width=5") == 0
    assert result("a")["parameters"] == 13 * 5 + 5 + 2 * 5 + 5 * 3 + 3
    capsys.readouterr()
    assert command(monkeypatch, "action=test", "name=a") == 2
    assert "trust=[own_nets]" in capsys.readouterr().err
    for trusting in (["trust=[own_nets]"], ["--config-dir", "mine"]):
        assert command(monkeypatch, "action=test", "name=a", *trusting) == 0
    write("more/local/default.yaml", "trust: [own_nets]\n")
    assert command(monkeypatch, "name=a", "extend=true", "trainer.max_epochs=2", "--config-dir", "more") == 0
    assert (result("a")["epochs"], result("a")["status"]) == (2, "finished")
    assert result("a")["parameters"] == 13 * 5 + 5 + 2 * 5 + 5 * 3 + 3


@pytest.mark.parametrize(
    "start",
    [
        ["-m", "normlab"],
        pytest.param([str(ROOT / "train.py")], marks=pytest.mark.slow),
        pytest.param(["-c", "import normlab.app as a; a.main()"], marks=pytest.mark.slow),
    ],
)
def test_options_of_a_folder_are_listed_however_the_command_is_started(start, place):
    line = [sys.executable, *start, "model=plan", "--config-dir", "mine"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("refused: no option plan in model; did you mean plain? (options: airbench, ")


@pytest.mark.parametrize("folder", ["mine", "file://mine", "file:///absolute"])
def test_hydras_search_path_is_a_folder_of_options_too(folder, place):
    folder = folder.replace("/absolute", f"{place}/mine")
    assert compose(["model=plain", f"hydra.searchpath=[{folder}]", "data=wine"]).model._target_ == "own_nets.Plain"


def test_the_types_of_an_own_option_are_checked(place):
    with pytest.raises(ConfigError, match="model.width=wide: expected a whole number"):
        compose(["model=plain", "model.width=wide", "hydra.searchpath=[mine]"])
    with pytest.raises(ConfigError, match="no key widht in model; did you mean width"):
        compose(["model=plain", "model.widht=3", "hydra.searchpath=[mine]"])


def test_an_own_option_may_not_be_called_like_one_of_ours(place):
    write("mine/norm/group.yaml", "_target_: own_norms.Group\n")
    with pytest.raises(ConfigError, match="normlab has a norm=group too; give norm/group.yaml another name"):
        compose(["hydra.searchpath=[mine]"])


def test_a_folder_that_is_not_there_is_said(place):
    with pytest.raises(ConfigError, match="hydra.searchpath=nowhere: there is no such folder"):
        compose(["hydra.searchpath=[nowhere]"])


def test_the_jobs_of_a_sweep_know_the_folder(place, monkeypatch):
    configs = []

    def run(config, folder):
        configs.append(config)
        return SimpleNamespace(score=0.5)

    monkeypatch.setattr(running, "run_job", run)
    assert command(monkeypatch, "-m", "model=plain,net", "data=wine", "name=s", "--config-dir", "mine") == 0
    assert [config.model._target_ for config in configs] == ["own_nets.Plain", "normlab.models.net.Net"]


def test_the_shell_completes_options_of_a_folder(place, monkeypatch, capsys):
    monkeypatch.setenv("COMP_LINE", "normlab --config-dir mine model=pl")
    monkeypatch.setattr(sys, "argv", ["normlab", "--shell-completion", "query=bash"])
    with pytest.raises(SystemExit):
        app.main()
    assert capsys.readouterr().out.split() == ["model=plain"]


def test_a_network_that_lacks_something_is_told_the_contract(place, quick_run, monkeypatch):
    monkeypatch.syspath_prepend(place)
    own = ["data=wine", "model._target_=own_nets.Plain"]
    with pytest.raises(ConfigError, match=r"own_nets.Plain needs width: set model.width=.*norm, input_shape and"):
        quick_run(*own)
    assert quick_run(*own, "+model.width=4").score is not None


def test_a_norm_that_a_network_does_not_take_is_refused(place, quick_run, monkeypatch):
    monkeypatch.syspath_prepend(place)
    with pytest.raises(ConfigError, match="own_nets.Plain takes no norm, so it counts for nothing"):
        quick_run("data=wine", "model._target_=own_nets.Plain", "+model.width=4", "norm=group")


def test_modules_in_the_working_folder_come_after_all_others(place, monkeypatch):
    command(monkeypatch, "seed=-1")
    assert sys.path[-1] == os.getcwd()


def test_the_rules_of_an_own_option_are_checked_and_bind_no_other(place, monkeypatch, capsys):
    write("mine/model/ruled.yaml", "_target_: own_nets.Plain\nwidth: 8 # [whole from 2 | null] features\n")
    write("mine/model/bad.yaml", "_target_: own_nets.Plain\nwidth: 8 # [0, 1] features\n")
    write("mine/model/wider.yaml", "defaults:\n  - ruled\nwidth: 9 # [whole from 4]\n")
    write("mine/model/same.yaml", "defaults: [ruled]\nwidth: 7\n")
    write("mine/norm/few.yaml", "defaults: [ghost]\nsize: 3 # [2 | 3] samples\n")
    write("mine/callbacks/mine.yaml", "mine: {_target_: own.Callback}\n")
    write("mine/callbacks/other.yaml", "other:\n  _target_: own.Other\n  every: 1 # [whole from 1] epochs\n")

    def said(*typed: str) -> str:
        with pytest.raises(ConfigError) as refusal:
            compose([*typed, "hydra.searchpath=[mine]"])
        return str(refusal.value)

    assert said("model=ruled", "model.width=1") == "model.width=1: expected a whole number of at least 2 or null"
    assert said("model=same", "model.width=1") == "model.width=1: expected a whole number of at least 2 or null"
    assert said("model=wider", "model.width=3") == "model.width=3: expected a whole number of at least 4"
    assert said("norm=few", "norm.size=8") == "norm.size=8: expected 2 or 3"
    assert "callbacks.other.every=0: expected a whole number" in said(
        "callbacks=[mine,other]", "callbacks.other.every=0"
    )
    write("mine/experiment/short.yaml", "# @package _global_\nmodel: {width: 0}\n")
    assert "model.width=0" in said("model=ruled", "experiment=short")
    for typed in (["model=plain", "model.width=1"], ["norm=ghost", "norm.size=8"], ["model=ruled", "model.width=null"]):
        compose([*typed, "hydra.searchpath=[mine]"])
    compose(["model=ruled", "model._target_=mine.Net", "+model.width=1", "hydra.searchpath=[mine]"])
    assert said("model=bad").startswith("model/bad.yaml: [0, 1] is no rule: expected words, or numbers such as")
    capsys.readouterr()
    assert command(monkeypatch, "model=ruled", "model.width=1", "--config-dir", "mine", "name=a") == 2
    assert "refused: model.width=1: expected a whole number of at least 2 or null" in capsys.readouterr().err
    assert not Path("outputs").exists()
