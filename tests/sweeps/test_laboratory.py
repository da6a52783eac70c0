"""A claim in a miniature: it is run, measured and judged; a second start adds none, lost measures are taken again."""

import json

import pytest

from normlab import app

MINIATURE = """# @package _global_
defaults:
  - override /sweep: claims
lab:
  pairs:
    wine_mlp: data=wine data.batch_size=32 model=mlp model.hidden=[8] trainer.max_epochs=1 logger=none
    wine_net: data=wine data.batch_size=32 model=net trainer.max_epochs=1 logger=none
claims:
  rate:
    claim: A rate of nearly nothing learns as well as one of a tenth.
    design: Two rates, after one epoch.
    pairs: [wine_mlp, wine_net]
    measure: accuracy
    margin: 0.1
    least_seeds: 5
    arms:
      slow: norm=batch optimizer.lr=0.000001
      fast: norm=batch optimizer.lr=0.1
    effects:
      how far the slow one is ahead: {slow: 1, fast: -1}
    literature: [Nobody has claimed it.]
"""


@pytest.fixture
def command(tmp_path, monkeypatch):
    folder = tmp_path / "mine" / "experiment" / "claims"
    folder.mkdir(parents=True)
    (folder / "rate.yaml").write_text(MINIATURE)
    monkeypatch.chdir(tmp_path)

    def start(*typed: str) -> int:
        words = ["train.py", "-m", "--config-dir", "mine", "experiment=claims/rate", "name=lab", *typed]
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit) as end:
            app.main()
        assert isinstance(end.value.code, int)
        return end.value.code

    return start


@pytest.mark.slow
def test_a_claim_is_run_measured_and_judged_and_goes_on(command, tmp_path, capsys):
    assert command() == 0
    lab = tmp_path / "outputs" / "lab"
    assert "contradicted" in capsys.readouterr().out
    fair = json.loads((lab / "fair.json").read_text())
    assert [(len(arm["trials"]), len(arm["fresh"])) for arm in fair["arms"]] == [(0, 5)] * 4
    fresh = [lab / str(run["job"]) for arm in fair["arms"] for run in arm["fresh"]]
    for run in fresh:
        tested = json.loads((run / "result.json").read_text())["metrics"]["test/acc"]
        assert json.loads((run / "measured.json").read_text())["values"] == {"accuracy": pytest.approx(tested)}
    page = (lab / "report.html").read_bytes()
    results = {file: file.stat().st_mtime_ns for file in lab.glob("*/result.json")}
    (fresh[0] / "measured.json").unlink()
    assert command() == 0
    assert (fresh[0] / "measured.json").is_file()
    assert {file: file.stat().st_mtime_ns for file in lab.glob("*/result.json")} == results
    assert (lab / "report.html").read_bytes() == page
