"""The doctor's look at a run: what it says, what it writes, and that it changes nothing."""

import json

import pytest
import torch
from helpers.cases import WINE
from helpers.folders import assert_same_weights, files, result_of
from torch.utils.data import TensorDataset

from normlab import compose, run
from normlab.doctor.__main__ import examine
from normlab.errors import ConfigError
from normlab.report.single import write_run_page
from normlab.report.single.diagnosis import section

FIT = [*WINE, "trainer=cpu", "trainer.max_epochs=4"]


def look(folder, *overrides, fit=FIT):
    """Looks at the run in a folder, as action=doctor does for one in outputs/."""
    config = compose([*fit, *overrides])
    config.action, config.ckpt = "doctor", "best"
    run(config, folder=folder)
    return said(folder)


def said(folder):
    return json.loads((folder / "doctor" / "doctor.json").read_text())


def codes(diagnosis):
    return [finding["code"] for finding in diagnosis["findings"]]


def test_a_fit_that_asks_for_it_is_the_fit_that_does_not(tmp_path):
    plain = run(compose(FIT), folder=tmp_path / "plain")
    asked = run(compose([*FIT, "doctor=true"]), folder=tmp_path / "asked")
    assert_same_weights(tmp_path / "plain", tmp_path / "asked")
    assert (asked.score, asked.metrics) == (plain.score, plain.metrics)
    assert (tmp_path / "plain" / "metrics.csv").read_text() == (tmp_path / "asked" / "metrics.csv").read_text()
    assert not (tmp_path / "plain" / "doctor").exists()
    at_the_end = said(tmp_path / "asked")
    assert codes(at_the_end) == []
    assert at_the_end["seen"].startswith("1 norm layer; accuracy 1.000 by running statistics")
    assert look(tmp_path / "asked") == at_the_end
    assert look(tmp_path / "plain") == at_the_end


@pytest.mark.slow
def test_what_it_says_of_statistics_that_hardly_moved_comes_true(tmp_path, capsys):
    """The measured gain is what the remedy really brings."""
    stuck = ["model=net", "data=digits", "logger=none", "trainer=cpu", "trainer.max_epochs=3", "norm.momentum=0.001"]
    plain = run(compose(stuck), folder=tmp_path / "run")
    (finding,) = look(tmp_path / "run", fit=stuck)["findings"]
    assert (finding["code"], finding["layer"]) == ("stale_statistics", "bn1")
    assert "callbacks=precise_bn" in finding["key"]
    precise = run(compose([*stuck, "callbacks=precise_bn"]), folder=tmp_path / "precise")
    gain = finding["gain"]
    assert gain["metric"] == "accuracy"
    assert gain["before"] == pytest.approx(plain.metrics["test/acc"], abs=1e-6)
    assert gain["after"] == pytest.approx(precise.metrics["test/acc"], abs=0.01)  # of other batches' statistics
    assert gain["after"] > gain["before"] + 0.03
    assert "stale_statistics (bn1)" in capsys.readouterr().out
    examine(tmp_path / "run")
    assert codes(said(tmp_path / "run")) == ["stale_statistics"]


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["norm=none"], "has no norm layer"),
        (["norm=frozen"], "are frozen"),
        (["data.batch_size=1000"], "gives a single batch"),
    ],
    ids=str,
)
def test_what_it_cannot_look_at_is_said_in_one_line(tmp_path, overrides, reason):
    fit = [*FIT, "trainer.max_epochs=1", *overrides]
    run(compose(fit), folder=tmp_path / "run")
    with pytest.raises(ConfigError, match=reason) as error:
        look(tmp_path / "run", fit=fit)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "doctor" / "doctor.json").exists()
    assert result_of(tmp_path / "run")["status"] == "finished"


def test_a_fit_ends_well_where_the_doctor_has_nothing_to_look_at(tmp_path, capsys):
    run(compose([*FIT, "trainer.max_epochs=1", "norm=none", "doctor=true"]), folder=tmp_path / "run")
    assert result_of(tmp_path / "run")["status"] == "finished"
    assert "doctor=true: Net has no norm layer" in capsys.readouterr().out


def test_a_run_without_a_checkpoint_and_no_run(tmp_path):
    run(compose([*FIT, "trainer.max_epochs=1", "keep=[]"]), folder=tmp_path / "run")
    before = files(tmp_path)
    with pytest.raises(ConfigError, match="has no checkpoint best"):
        examine(tmp_path / "run")
    with pytest.raises(ConfigError, match="there is no run in"):
        examine(tmp_path / "other")
    assert files(tmp_path) == before


def test_a_checkpoint_of_another_task(tmp_path):
    run(compose([*FIT, "trainer.max_epochs=1"]), folder=tmp_path / "run")
    other = [*FIT, "data=diabetes", "trainer.max_epochs=1"]
    run(compose(other), folder=tmp_path / "other")
    config = compose(FIT)
    config.action, config.ckpt = "doctor", str(tmp_path / "other" / "checkpoints" / "best.ckpt")
    with pytest.raises(ConfigError, match="belongs to another network"):
        run(config, folder=tmp_path / "run")
    assert not (tmp_path / "run" / "doctor" / "doctor.json").exists()


def test_own_data_of_another_contrast_is_a_shift_and_its_page_says_so(tmp_path):
    torch.manual_seed(0)
    y = torch.arange(900) % 3
    x = torch.randn(900, 6) + 2 * torch.eye(3, 6)[y]
    parts = [TensorDataset(x[part], y[part]) for part in (slice(0, 500), slice(500, 600))]
    data = (*parts, TensorDataset(0.3 * x[600:] + 2, y[600:]))
    fit = [*FIT[1:], "model=net", "data.batch_size=25", "trainer.max_epochs=8"]
    fit.remove("data=wine")
    run(compose(fit), folder=tmp_path / "run", data=data)
    config = compose(fit)
    config.action, config.ckpt = "doctor", "best"
    run(config, folder=tmp_path / "run", data=data)
    (finding,) = said(tmp_path / "run")["findings"]
    assert finding["code"] == "shift"
    page = write_run_page(tmp_path / "run").file.read_text()
    assert "Not healthy: 1 norm layer" in page
    assert "<dt>shift</dt>" in page
    gain = finding["gain"]
    assert f"{gain['metric']} {gain['before']:.3g} → {gain['after']:.3g}" in page


@pytest.mark.parametrize(
    "content", ["", "[]", '{"seen": 1}', '{"seen": "x", "findings": [1, {"gain": {}}], "notes": 3}']
)
def test_a_page_is_made_beside_any_doctor_json(tmp_path, content):
    (tmp_path / "doctor").mkdir()
    (tmp_path / "doctor" / "doctor.json").write_text(content)
    said = section(tmp_path)
    assert said is None or [len(row) for row in said["findings"]] == [5]
