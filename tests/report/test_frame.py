"""normlab.runs: what a notebook sees of the runs in a folder is what their files say."""

import pytest
from helpers.folders import result_of

import normlab
from normlab.errors import ConfigError

WINE = ["model=net", "data=wine", "logger=none", "trainer.max_epochs=2"]


def test_a_row_for_each_run_with_its_keys_and_scores(tmp_path):
    folders = [tmp_path / "a", tmp_path / "sweep" / "9", tmp_path / "sweep" / "10"]
    typed = [["optimizer.lr=0.03"], ["norm=group", "tags=[draft]"], ["data=diabetes"]]
    for folder, overrides in zip(folders, typed, strict=True):
        normlab.run(normlab.compose([*WINE, *overrides]), folder=folder)
    (tmp_path / "sweep" / "10" / "result.json").write_text("{")
    frame = normlab.runs(tmp_path)
    assert list(frame["folder"]) == [str(folder) for folder in folders]
    assert list(frame["status"]) == ["finished", "finished", "damaged"]
    assert frame["optimizer.lr"][0] == 0.03
    assert frame["norm._target_"][1] == "normlab.norms.group.Group"
    assert frame["tags"][1] == ["draft"]
    for row, folder in enumerate(folders[:2]):
        result = result_of(folder)
        assert frame["score"][row] == result["score"]
        assert frame["test/acc"][row] == result["metrics"]["test/acc"]
    assert frame["score"].isna()[2]
    assert frame.columns.is_unique


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no run"):
        normlab.runs(tmp_path)
