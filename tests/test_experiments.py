"""Walks conf/experiment: each header has its form, its command is the experiment's, and each trains a batch."""

import sys

import pytest
from helpers.cases import ROOT, options, rest_slow
from helpers.samples import image_folder
from omegaconf import OmegaConf

from normlab import compose
from normlab.config.compose import check
from normlab.config.options import CONF, GROUPS
from normlab.config.sweep import check_sweep

sys.path.append(str(ROOT / "benchmarks"))
import experiments

EXPERIMENTS = options("experiment")
# An experiment chooses parts, and sets numbers of those that are the same for every choice (DESIGN.md).
MAY_SET = {"loss", "optimizer", "scheduler", "trainer", "data", "task", "channels_last", "score", "score_mode"}
MAY_SET |= {"steps_per_execution", "compile", "allocator", "freeze"}


@pytest.fixture
def data(tmp_path, monkeypatch, example):
    """Small stand-ins where experiments look for real data."""
    monkeypatch.setenv("NORMLAB_DATA_DIR", str(tmp_path))
    example("mnist")
    for part, images in (("train", 40), ("test", 8)):
        image_folder(tmp_path / "cifar10" / part, images=images, size=(32, 32))
    cells = [[str(row % (column + 2)) for column in range(16)] for row in range(90)]
    rows = [",".join([*line, "yes" if row % 2 else "no"]) for row, line in enumerate(cells)]
    (tmp_path / "uci").mkdir()
    (tmp_path / "uci" / "bank-full.csv").write_text("\n".join(rows) + "\n")


def header(name: str) -> experiments.Header:
    return experiments.read((CONF / "experiment" / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_header_has_its_form_and_its_command_composes(name, data):
    found = header(name)
    assert f"experiment={name}" in found.overrides
    typed = [override for override in found.overrides if override != "-m"]
    (check_sweep if "-m" in found.overrides else check)(typed)
    swept = [f"{key}={one}" for key, _, values in (line.partition("=") for line in typed) for one in values.split(",")]
    for expected in found.expected:
        assert set(expected.overrides) <= set(swept), expected
        assert expected.seeds >= 3 or "core" in found.fields["Time"], "one seed is for what takes long"


@pytest.mark.parametrize("name", rest_slow(EXPERIMENTS, lambda case: case[0] in ("bank", "fast_cpu", "high_rate")))
def test_it_trains_a_batch(name, data, quick_run):
    single = ["trainer.limit_train_batches=1", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1"]
    measured = quick_run(f"experiment={name}", "trainer.max_epochs=1", *single).metrics
    assert measured
    assert {metric for expected in header(name).expected for metric in expected.figures} <= measured.keys()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_sets_nothing_inside_of_parts_that_a_command_may_exchange(name, data):
    written = OmegaConf.load(CONF / "experiment" / f"{name}.yaml")
    chosen = written.pop("defaults", [])
    assert set(written) <= MAY_SET
    assert {key.removeprefix("override /") for choice in chosen for key in choice} <= set(GROUPS)
    changed = compose([f"experiment={name}", "norm=group"])
    assert changed.norm == compose(["norm=group"]).norm
