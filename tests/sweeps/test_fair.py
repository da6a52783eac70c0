"""`sweep=fair`: which jobs run, what is compared, and a sweep that goes on; the jobs are not trained."""

import json

import pytest
from helpers.fairs import Stop, fair_sweep, told
from scipy.stats import qmc

from normlab.errors import SweepError

ARMS = ["norm=batch,group,none", "fair.trials=4", "fair.seeds=3"]


def results(path) -> dict[str, bytes]:
    return {file.parent.name: file.read_bytes() for file in path.glob("*/result.json")}


def test_each_arm_is_tuned_alike_and_its_best_setting_is_run_on_fresh_seeds(tmp_path):
    launcher, fair = fair_sweep(tmp_path, *ARMS)
    assert (fair["keys"], fair["score"], fair["score_mode"]) == (["norm", "model", "data"], "val/acc", "max")
    assert [arm["name"] for arm in fair["arms"]] == ["norm=batch", "norm=group", "norm=none"]
    shares = qmc.Halton(1, rng=0).random(4)[:, 0]
    for arm in fair["arms"]:
        rates = [trial["point"]["optimizer.lr"] for trial in arm["trials"]]
        assert rates == pytest.approx([0.02 / 30 * 900**share for share in shares], rel=1e-3)
        runs = [launcher.launched[trial["job"]] for trial in arm["trials"]]
        assert [(run.optimizer.lr, run.seed, run.test) for run in runs] == [(rate, 0, False) for rate in rates]
        scores = [json.loads((tmp_path / str(t["job"]) / "result.json").read_text())["score"] for t in arm["trials"]]
        best = scores.index(max(score for score in scores if score is not None))
        assert arm["tuned"] == {"trial": best, **arm["trials"][best]}
        fresh = [launcher.launched[run["job"]] for run in arm["fresh"]]
        assert [(run.optimizer.lr, run.seed, run.test) for run in fresh] == [
            (rates[best], seed, True) for seed in (1, 2, 3)
        ]
    assert len({arm["tuned"]["trial"] for arm in fair["arms"]}) > 1
    assert launcher.launched.keys() == {*range(21)}


@pytest.mark.parametrize("stops", [0, 5, 12, 17])
def test_a_killed_sweep_ends_as_one_that_was_not(stops, tmp_path):
    fair_sweep(tmp_path / "whole", *ARMS)
    with pytest.raises(Stop):
        fair_sweep(tmp_path / "parts", *ARMS, stops=stops)
    rest, fair = fair_sweep(tmp_path / "parts", *ARMS)
    assert fair == told(tmp_path / "whole")
    assert results(tmp_path / "parts") == results(tmp_path / "whole")
    assert len(rest.launched) == 21 - stops
    again, _ = fair_sweep(tmp_path / "parts", *ARMS)
    assert again.launched == {}


@pytest.mark.parametrize(
    ("more", "new"),
    [
        (["norm=batch,group,none", "fair.trials=4", "fair.seeds=3"], 4),
        (["norm=group,batch", "fair.trials=4", "fair.seeds=5"], 0),
        (["norm=batch,group", "fair.trials=5", "fair.seeds=3"], 2),
    ],
    ids=["an arm", "seeds", "trials"],
)
def test_what_is_added_runs_nothing_again(more, new, tmp_path):
    fair_sweep(tmp_path, "norm=batch,group", "fair.trials=4", "fair.seeds=3")
    before = results(tmp_path)
    launched = fair_sweep(tmp_path, *more)[0].launched
    assert sum(not run.test for run in launched.values()) == new
    assert before.items() <= results(tmp_path).items()


def test_a_run_that_diverged_is_an_answer_and_one_that_failed_is_run_again(tmp_path):
    """Of the four rates one is above a tenth."""
    failed = {1: {"status": "failed", "score": None, "error": "MemoryError: no"}}
    with pytest.raises(SweepError, match=r"1 of 14 jobs failed: \S+/1$"):
        fair_sweep(tmp_path, "norm=batch,group", *ARMS[1:], ends=failed)
    statuses = [json.loads(text)["status"] for text in results(tmp_path).values()]
    assert statuses.count("failed") == 3
    again, _ = fair_sweep(tmp_path, "norm=batch,group", *ARMS[1:])
    assert again.launched.keys() == {1}
