"""`hydra.sweeper.confirm=`: a search's three best trials on fresh seeds, before one of them is called the best."""

import json

import pytest

from normlab import compose
from normlab.errors import SweepError
from normlab.folder.identity import config_hash

pytest.importorskip("optuna")
from helpers.searches import GRID, FakeLauncher, FakeQueue, Stop, search, study, told  # it needs optuna too

RATES = ["optimizer.lr=0.1,0.2,0.3,0.4,0.5"]  # trial k has the k-th
SEARCHED = {"0.1": 0.5, "0.2": 0.9, "0.3": 0.8, "0.4": 0.7, "0.5": 0.6}
FRESH = {
    "0.1": 0.3,
    "0.2": 0.5,
    "0.3": 0.55,
    "0.4": 0.65,
    "0.5": 0.4,
}  # the mean over seeds 1 to 3; the search's best was lucky


class Lucky:
    """The scores of a search whose best trial is not the best one. diverges: by rate, the seeds that diverge."""

    diverges = ()

    def result(self, number, values):
        rate, seed = values["optimizer.lr"], values.get("seed")
        score = SEARCHED[rate] if seed is None else FRESH[rate] + (int(seed) - 2) / 100
        known = {"config_hash": config_hash(compose([f"{key}={value}" for key, value in values.items()]))}
        if (rate, seed) in self.diverges:
            return known | {"status": "failed", "score": None, "error": "FloatingPointError: loss is nan"}
        return known | {"score": score, "seconds": 1.0, "parameters": 1, "metrics": {"test/acc": score - 0.1}}


class Batches(Lucky, FakeLauncher):
    """Knows Hydra's `launch` alone."""


class Queue(Lucky, FakeQueue):
    pass


def confirm(path, launcher, **settings):
    return search(path, launcher, RATES, **{"sampler": GRID, "n_trials": 5, "n_jobs": 2, "confirm": 3} | settings)


def record(path) -> dict:
    return json.loads((path / "fair.json").read_text())


def fresh(launcher) -> list[tuple[str, str]]:
    """The rate and seed of each fresh run that was launched."""
    jobs = [dict(line.split("=") for line in overrides) for _, overrides in launcher.launched]
    return sorted((job["optimizer.lr"], job["seed"]) for job in jobs if "seed" in job)


THREE_EACH = [(rate, seed) for rate in ("0.2", "0.3", "0.4") for seed in "123"]


@pytest.mark.parametrize("launcher", [pytest.param(Batches, marks=pytest.mark.slow), Queue])
def test_the_best_three_run_again_and_the_best_of_those_runs_stands_first(launcher, tmp_path, caplog, capsys):
    caplog.set_level("INFO")
    made = launcher()
    confirm(tmp_path, made)
    assert [number for number, _ in made.launched[:5]] == [0, 1, 2, 3, 4]
    assert fresh(made) == THREE_EACH
    assert len(study(tmp_path).trials) == 5
    assert caplog.messages[-1].splitlines() == [
        "on 3 seeds that the search did not use:",
        "  3, val/acc 0.65 ± 0.01 (in the search 0.7), test/acc 0.55 ± 0.01, optimizer.lr=0.4",
        "  2, val/acc 0.55 ± 0.01 (in the search 0.8), test/acc 0.45 ± 0.01, optimizer.lr=0.3",
        "  1, val/acc 0.5 ± 0.01 (in the search 0.9), test/acc 0.4 ± 0.01, optimizer.lr=0.2",
    ]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("14 jobs: 14 finished, best val/acc 0.65 optimizer.lr=0.4 (mean of 3), ")
    written = record(tmp_path)
    assert {key: written[key] for key in ("format", "confirm", "seeds", "over", "score", "score_mode")} == {
        "format": 1,
        "confirm": True,
        "seeds": 3,
        "over": "seed",
        "score": "val/acc",
        "score_mode": "max",
    }
    assert [arm["name"] for arm in written["arms"]] == ["optimizer.lr=0.2", "optimizer.lr=0.3", "optimizer.lr=0.4"]
    for number, arm in enumerate(written["arms"], 1):
        assert arm["settings"] == {"optimizer.lr": f"0.{number + 1}"}
        assert arm["trials"] == [{"job": number, "point": {"optimizer.lr": f"0.{number + 1}"}}]
        assert arm["tuned"] == {"trial": 0} | arm["trials"][0]
        assert [run["replicate"] for run in arm["fresh"]] == [1, 2, 3]
        for run in arm["fresh"]:
            assert run["job"] >= 5
            overrides = told(tmp_path / str(run["job"]))["overrides"]
            assert overrides == [f"optimizer.lr=0.{number + 1}", f"seed={run['replicate']}"]


def test_what_was_under_way_when_it_stopped_goes_on(tmp_path, caplog):
    with pytest.raises(Stop):
        confirm(tmp_path, Queue(stops=8))  # jobs 5, 6 and 7 have ended, and 9 runs
    caplog.set_level("INFO")
    rest, again = Queue(), Queue()
    confirm(tmp_path, rest)
    assert fresh(rest) == THREE_EACH[3:]
    assert [number for number, _ in rest.launched] == [8, 9, 10, 11, 12, 13]
    assert caplog.messages[-1].splitlines()[1].startswith("  3, val/acc 0.65 ")
    before = record(tmp_path)
    confirm(tmp_path, again)
    assert again.launched == []
    assert record(tmp_path) == before


def test_nothing_is_told_before_a_run_whose_process_was_killed_has_run_again(tmp_path, caplog):
    caplog.set_level("INFO")
    with pytest.raises(SweepError, match="1 of 14 jobs failed: .*/6"):
        confirm(tmp_path, Queue(killed=(6,)))
    assert "the search did not use" not in caplog.text
    rest = Queue()
    confirm(tmp_path, rest)
    assert fresh(rest) == [("0.2", "2")]
    assert "on 3 seeds that the search did not use" in caplog.text


@pytest.mark.slow
def test_a_search_with_open_trials_confirms_none(tmp_path):
    launcher = Queue(killed=(0,))
    with pytest.raises(SweepError, match="1 of 5 jobs failed"):
        confirm(tmp_path, launcher)
    assert fresh(launcher) == []
    confirm(tmp_path, rest := Queue())
    assert fresh(rest) == THREE_EACH


def test_a_trial_that_diverges_again_is_counted_and_stands_last(tmp_path, caplog):
    caplog.set_level("INFO")
    launcher = Queue()
    launcher.diverges = [("0.4", "2")]
    confirm(tmp_path, launcher)
    *_, last = caplog.messages[-1].splitlines()
    assert last.startswith("  3, val/acc 0.65 ± 0.014 (in the search 0.7)")
    assert last.endswith("1 of 3 diverged, optimizer.lr=0.4")
    confirm(tmp_path, again := Queue())
    assert again.launched == []


def test_more_seeds_and_more_trials_add_what_is_new(tmp_path, capsys):
    """The new trials, of which one is among the best three, have numbers that no fresh run has."""
    confirm(tmp_path, first := Queue(), n_trials=3, confirm=2)
    assert fresh(first) == [(rate, seed) for rate in ("0.1", "0.2", "0.3") for seed in "12"]
    more, again = Queue(), Queue()
    confirm(tmp_path, more, n_trials=5, confirm=1)
    assert "12 jobs: 12 finished, " in capsys.readouterr().out
    assert [trial.number for trial in study(tmp_path).trials if trial.params] == [0, 1, 2, 9, 10]
    assert fresh(more) == [("0.4", "1")]
    assert [arm["tuned"]["job"] for arm in record(tmp_path)["arms"]] == [1, 2, 9, 0]
    confirm(tmp_path, again, confirm=3)
    assert fresh(again) == [("0.1", "3"), ("0.2", "3"), ("0.3", "3"), ("0.4", "2"), ("0.4", "3")]


@pytest.mark.slow
def test_the_lowest_stands_first_of_what_is_lowered(tmp_path, caplog):
    caplog.set_level("INFO")

    class Losses(Queue):
        def result(self, number, values):
            result = super().result(number, values)
            return result | {"metrics": {"val/loss": 1 - result["score"], "test/loss": 0.5}}

    confirm(tmp_path, Losses(), objectives=["val/loss"], confirm=1)
    assert caplog.messages[-1].splitlines()[1:] == [
        "  3, val/loss 0.36 (in the search 0.3), test/loss 0.5, optimizer.lr=0.4",
        "  2, val/loss 0.46 (in the search 0.2), test/loss 0.5, optimizer.lr=0.3",
        "  1, val/loss 0.51 (in the search 0.1), test/loss 0.5, optimizer.lr=0.2",
    ]
    assert (record(tmp_path)["score"], record(tmp_path)["score_mode"]) == ("val/loss", "min")
