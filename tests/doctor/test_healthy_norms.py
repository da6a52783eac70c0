"""Runs of every norm by its defaults are healthy."""

import json

import pytest
from helpers.cases import options

from normlab import compose, run
from normlab.errors import ConfigError

RUNS = [("net", "wine", 8), ("net", "breast_cancer", 5), ("mynet", "digits", 3)]


@pytest.mark.parametrize(
    ("model", "data", "epochs", "norm"),
    [
        pytest.param(*of, norm, marks=() if (of[1], norm) == ("wine", "batch") else pytest.mark.endurance)
        for of in RUNS
        for norm in options("norm")
    ],
)
def test_a_run_by_its_defaults_is_healthy(tmp_path, model, data, epochs, norm):
    options = [f"model={model}", f"data={data}", f"norm={norm}", f"trainer.max_epochs={epochs}", "trainer=cpu"]
    try:
        run(compose([*options, "logger=none", "doctor=true"]), folder=tmp_path)
    except ConfigError as error:  # the norm needs space, or larger batches
        pytest.skip(str(error))
    file = tmp_path / "doctor" / "doctor.json"
    if norm in ("none", "nf", "frozen"):
        assert not file.exists()
        return
    assert json.loads(file.read_text())["findings"] == []
