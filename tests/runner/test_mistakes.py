"""Mistakes in a person's own classes: each is shown with its traceback, once, and is no refusal."""

import json
import sys

import pytest
from lightning import Callback

from normlab import app, compose, run
from normlab.errors import ConfigError

SMALL = ["model=net", "data=wine", "logger=none", "trainer.max_epochs=1"]
MINE = """
import torch
from lightning import Callback
from normlab.data.wine import Wine

class Uneven(torch.nn.Module):
    def __init__(self, norm, input_shape, out_features):
        super().__init__()
        self.first, self.second = input_shape  # MISTAKE of Uneven

class Narrow(torch.nn.Module):
    def __init__(self, norm, input_shape, out_features):
        super().__init__()
        self.layer = torch.nn.Linear(input_shape[0] + 1, out_features)

    def forward(self, x):
        return self.layer(x)  # MISTAKE of Narrow

class Empty(Wine):
    def load(self):
        return int("none")  # MISTAKE of Empty

class Slow(torch.optim.SGD):
    def __init__(self, params, lr):
        raise TypeError("nothing to do")  # MISTAKE of Slow

class Loud(Callback):
    def __init__(self):
        "".index("?")  # MISTAKE of Loud
"""
CASES = [
    (["model._target_={}.Uneven"], ValueError),
    (["model._target_={}.Narrow"], RuntimeError),
    (["data._target_={}.Empty"], ValueError),
    (["optimizer._target_={}.Slow", "optimizer.lr=0.1"], TypeError),
    (["+callbacks.loud={{_target_: {}.Loud}}"], ValueError),
]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Gives a module with the text a name of its own, as an import lasts as long as the process."""
    monkeypatch.syspath_prepend(tmp_path)

    def go(text):
        name = f"mine_{abs(hash((text, str(tmp_path))))}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield go
    for name in [name for name in sys.modules if name.startswith("mine_")]:
        del sys.modules[name]


@pytest.mark.parametrize(("typed", "kind"), CASES, ids=[typed[0].rpartition(".")[2].rstrip("}") for typed, _ in CASES])
def test_a_mistake_is_shown_where_it_was_made_and_once(tmp_path, mine, capsys, typed, kind):
    module = mine(MINE)
    config = compose([*SMALL, *(line.format(module) for line in typed)])
    assert app._guarded(lambda: run(config, folder=tmp_path / "run")) == 1
    said = capsys.readouterr().err
    assert said.count("Traceback (most recent call last)") == 1
    place = typed[0].rpartition(".")[2].rstrip("}")
    (line,) = (number for number, text in enumerate(MINE.splitlines(), 1) if f"MISTAKE of {place}" in text)
    assert f'{module}.py", line {line}, in ' in said
    assert f"\n{kind.__name__}: " in said
    assert "refused" not in said
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "failed"


def test_a_mistake_that_keeps_a_module_from_being_imported_is_shown_too(tmp_path, mine, capsys):
    module = mine("import torch\nunknown_name\n")
    for group in ("data", "model", "optimizer"):
        config = compose([*SMALL, f"{group}._target_={module}.Some", "scheduler=none"])
        assert app._guarded(lambda config=config, group=group: run(config, folder=tmp_path / group)) == 1
        said = capsys.readouterr().err
        assert said.count("Traceback (most recent call last)") == 1
        assert f'{module}.py", line 2, in <module>' in said
        assert "NameError: name 'unknown_name' is not defined" in said


def test_what_our_checks_find_in_a_persons_network_stays_a_refusal(tmp_path, mine):
    module = mine(
        "import torch\nclass Bare(torch.nn.Sequential):\n"
        "    def __init__(self, norm, input_shape, out_features):\n"
        "        super().__init__(torch.nn.Linear(*input_shape, 8), norm(8, 4), torch.nn.Linear(8, out_features))\n"
    )
    with pytest.raises(ConfigError, match="dims=4; there are layers for 0 to 3 spatial dimensions"):
        run(compose([*SMALL, f"model._target_={module}.Bare"]), folder=tmp_path / "run")


@pytest.mark.parametrize("typed", ["optimizer._target_=torch.optim.Rprop", "scheduler._target_=torch.optim.Adam"])
def test_what_a_librarys_class_does_not_take_stays_a_refusal(tmp_path, typed):
    values = ["+optimizer.etas=[2,3]"] if "Rprop" in typed else ["+scheduler.lr=-1"]
    with pytest.raises(ConfigError, match=r"Invalid eta|scheduler"):
        run(compose([*SMALL, typed, *values]), folder=tmp_path)


class Counts(Callback):
    def __init__(self):
        self.epochs = 0

    def on_train_epoch_end(self, trainer, task):
        self.epochs += 1


def test_callbacks_may_be_given_from_python(tmp_path):
    counts = Counts()
    run(compose([*SMALL, "trainer.max_epochs=2"]), folder=tmp_path, callbacks=[counts])
    assert counts.epochs == 2


def test_callbacks_from_python_are_refused_where_other_processes_train(tmp_path):
    with pytest.raises(ConfigError, match="callbacks given from Python act in one process, and this run starts 2"):
        run(compose([*SMALL, "trainer=ddp_cpu"]), folder=tmp_path, callbacks=[Counts()])
