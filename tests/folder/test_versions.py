"""Runs that earlier versions of normlab have left are resumed, tested, predicted from and trained on.

`tests/folders/<version>` is made by scripts/version_folder.py, once a format of the files, and is never made anew for a
version that was released: where a test fails here, it is the code that has to learn to read the older files.
"""

import json
import shutil
from pathlib import Path

import pytest
from helpers.cases import ROOT
from helpers.folders import result_of, rows_of, state

from normlab import compose, run
from normlab.errors import ConfigError

VERSIONS = sorted(path.name for path in (ROOT / "tests" / "folders").iterdir())


def near(values):
    """Other processors and versions of torch round otherwise."""
    return pytest.approx(values, rel=1e-4, abs=1e-5)


@pytest.fixture(params=VERSIONS)
def version(request, tmp_path, monkeypatch):
    """What the runs of a version came to; its folders lie in `outputs`."""
    shutil.copytree(ROOT / "tests" / "folders" / request.param, tmp_path / "outputs")
    monkeypatch.chdir(tmp_path)
    return json.loads(Path("outputs/expected.json").read_text())


def test_a_stopped_run_goes_on_by_its_command_to_the_same_end(version):
    result = run(compose([*version["command"], "name=stopped"]))
    assert "resuming from" in Path("outputs/stopped/train.log").read_text()
    assert result.metrics == near(version["metrics"])
    assert len(rows_of(Path("outputs/stopped"))) == 3
    assert state(Path("outputs/stopped"))["epoch"] == 2


def test_a_finished_run_is_known_and_is_trained_on(version):
    assert run(compose([*version["command"], "name=finished"])).task is None
    run(compose(["name=finished", "extend=true", "trainer.max_epochs=4"]))
    assert result_of(Path("outputs/finished"))["epochs"] == 4


def test_a_finished_run_is_measured_and_predicts_as_it_did(version):
    tested = run(compose(["action=test", "name=finished"])).metrics
    assert tested == near({key: version["metrics"][key] for key in tested})
    frame = run(compose(["action=predict", "name=finished"])).predictions
    assert frame is not None
    for column, values in version["predictions"].items():
        numbers = isinstance(values[0], float)
        assert frame[column].tolist() == (near(values) if numbers else values)


@pytest.mark.parametrize("action", ["fit", "test", "extend"])
def test_a_run_of_a_later_version_is_refused_and_left_alone(version, action):
    file = Path("outputs/finished/result.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 99}))
    before = {path: path.read_bytes() for path in Path("outputs").rglob("*") if path.is_file()}
    typed = {"fit": version["command"], "test": ["action=test"], "extend": ["extend=true", "trainer.max_epochs=9"]}
    with pytest.raises(ConfigError, match=r"^outputs/finished is a run of a later version .*format is 99") as refusal:
        run(compose([*typed[action], "name=finished"]))
    assert "\n" not in str(refusal.value)
    assert {path: path.read_bytes() for path in Path("outputs").rglob("*") if path.is_file()} == before


def test_the_folders_are_small():
    assert sum(path.stat().st_size for path in (ROOT / "tests" / "folders").rglob("*")) < 200_000 * len(VERSIONS)
