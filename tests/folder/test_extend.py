"""`name=<run> extend=true trainer.max_epochs=` needs nothing else: the run's configuration is in its folder."""

import json
from pathlib import Path

import pytest
import torch

from normlab import compose, run
from normlab.errors import ConfigError

MADE = ["model=net", "data=wine", "logger=none", "scheduler=step", "norm=group", "optimizer.lr=0.03"]
LONGER = ["extend=true", "trainer.max_epochs=4"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def weights(name: str) -> dict[str, torch.Tensor]:
    return torch.load(Path("outputs", name, "checkpoints", "last.ckpt"), weights_only=True)["state_dict"]


def test_a_run_goes_on_by_its_name_as_its_whole_command_would():
    for name, typed in (("tune/0", []), ("b", MADE)):
        run(compose([*MADE, "trainer.max_epochs=2", f"name={name}"]))
        run(compose([*typed, *LONGER, f"name={name}"]))
    short, whole = weights("tune/0"), weights("b")
    assert all(torch.equal(short[key], whole[key]) for key in whole)
    result = json.loads(Path("outputs/tune/0/result.json").read_text())
    assert (result["epochs"], result["config_hash"]) == (4, compose_hash())
    assert compose(["action=test", "name=tune/0"]).model._target_ == "normlab.models.net.Net"


def compose_hash() -> str:
    from normlab.folder.identity import config_hash

    return config_hash(compose([*MADE, *LONGER]))


def test_other_settings_than_the_folders_are_refused_as_before():
    run(compose([*MADE, "trainer.max_epochs=2", "name=a"]))
    with pytest.raises(ConfigError, match=r"optimizer.lr: 0.03 there, 0.5 here"):
        compose([*LONGER, "name=a", "optimizer.lr=0.5"])


def test_the_command_that_chose_an_experiment_may_be_typed_again():
    small = ["experiment=fast_cpu", "trainer.limit_train_batches=1", "logger=none", "name=a"]
    run(compose([*small, "trainer.max_epochs=1"]))
    longer = compose([*small, "extend=true", "trainer.max_epochs=2"])
    assert "experiment" not in longer
    with pytest.raises(ConfigError, match="experiment=mnist: an old run keeps its settings"):
        compose(["experiment=mnist", *LONGER, "name=a"])
