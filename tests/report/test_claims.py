"""What the report's page claims of made-up run folders: lost runs, folds, ceilings, budgets, and the command."""

import json
import re
import shlex
from html import unescape

import numpy as np
import pytest
from helpers.cases import rest_slow
from helpers.processes import train
from helpers.reports import make_run, make_sweep, page_text, rows

from normlab.report import write_report
from normlab.report.scores import drawn

BASE = ("model=net", "data=wine")
EQUAL = {"batch": [0.90, 0.92, 0.91, 0.93, 0.90], "group": [0.85, 0.86, 0.84, 0.87, 0.85]}


def lose(sweep, norm, seeds, **changes):
    """Failed runs of a norm with these seeds."""
    for seed in seeds:
        changes = {"score": None, "status": "failed", "error": "boom"} | changes
        make_run(sweep / f"{norm}{seed}", *BASE, f"norm={norm}", f"seed={seed}", **changes)


def comparison_of(folder):
    (found,) = write_report([folder]).comparisons
    return found


def command_of(folder) -> str:
    return unescape(re.search(r"<dt>command</dt><dd>(.*?)</dd>", (folder / "report.html").read_text()).group(1))


def test_the_headline_stays_the_first_line_in_bold(tmp_path):
    make_sweep(tmp_path / "s", EQUAL, metrics={"test/acc": 0.875})
    write_report([tmp_path / "s"])
    lines = (tmp_path / "s" / "summary.md").read_text().splitlines()
    first = next(line for line in lines if line.startswith("**"))
    assert first.startswith("**batch has the highest val/acc 0.9120\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.0130")
    assert "maximum over each run’s epochs" in first
    assert "test/acc 0.8750" in first


def test_one_survivor_of_five_is_not_the_best(tmp_path):
    sweep = make_sweep(tmp_path / "s", EQUAL | {"none": [0.99]})
    lose(sweep, "none", [2, 3, 4, 5])
    found = comparison_of(sweep)
    assert found.best.settings["norm"] == "batch"
    none = next(c for c in found.configurations if c.settings["norm"] == "none")
    assert np.isnan(none.score.low)
    assert (none.behind, none.tied) == (None, False)
    assert len(found.blocks.shared) == 5
    text = page_text(sweep)
    assert "none lost runs (†)" in text
    assert "4 of 5" in text
    row = next(row for row in rows(sweep) if row["norm"] == "none")
    assert (row["lost_rate"], row["tied_with_best"]) == ("0.8", "")


def test_what_lost_runs_is_best_where_it_leads_with_the_worst_score_for_each(tmp_path):
    sweep = make_sweep(tmp_path / "s", EQUAL | {"none": [0.99, 0.99, 0.98, 0.99]})
    lose(sweep, "none", [5])
    found = comparison_of(sweep)  # (0.99 + 0.99 + 0.98 + 0.99 + 0.84) / 5 = 0.958
    assert found.best.settings["norm"] == "none"
    text = page_text(sweep)
    assert "1 of its 5 runs were lost" in text
    assert "more than noise" not in text


@pytest.mark.parametrize("status", rest_slow(["pruned", "interrupted", "running"], lambda case: case[0] == "pruned"))
def test_what_was_pruned_or_has_not_run_yet_is_not_lost(status, tmp_path):
    sweep = make_sweep(tmp_path / "s", EQUAL | {"none": [0.80, 0.81, 0.82]})
    lose(sweep, "none", [4, 5], status=status)
    found = comparison_of(sweep)
    assert not any(c.lost for c in found.configurations)
    assert {c.score.count for c in found.ranked} == {3}  # compared over the seeds that all have
    assert "†" not in page_text(sweep).replace("† lost runs, so no interval", "")


def test_a_configuration_that_has_only_begun_takes_no_seeds_from_the_others(tmp_path):
    found = comparison_of(make_sweep(tmp_path / "s", EQUAL | {"none": [0.99]}))
    assert found.best.settings["norm"] == "batch"
    assert found.best.score.count == 5
    assert "none has too few seeds to be compared" in page_text(tmp_path / "s")


def test_ranking_and_lead_speak_of_the_same_seeds(tmp_path):
    """Over its own five seeds group would win; over the three that both have, batch does."""
    sweep = make_sweep(tmp_path / "s", {"batch": [0.80, 0.81, 0.82], "group": [0.79, 0.80, 0.80, 0.99, 0.99]})
    found = comparison_of(sweep)
    assert found.best.settings["norm"] == "batch"
    assert found.ranked[1].behind.mean > 0
    assert [c.score.count for c in found.ranked] == [3, 3]
    assert found.ranked[1].score.mean == pytest.approx(np.mean([0.79, 0.80, 0.80]))


def test_at_the_ceiling_nobody_is_best(tmp_path):
    scores = {"batch": [1.0, 1.0, 1.0], "group": [1.0, 1.0, 1.0], "none": [0.9, 1.0, 0.95]}
    found = comparison_of(make_sweep(tmp_path / "s", scores))
    assert found.best is None
    text = page_text(tmp_path / "s")
    assert "batch and group share the highest val/acc" in text
    assert "Nobody is best" in text
    assert "score=val/loss score_mode=min" in text
    assert "★" not in text.replace("★ the best", "")


def test_no_interval_has_width_zero_or_leaves_zero_to_one(tmp_path):
    scores = {"batch": [26 / 27] * 3, "group": [25 / 27] * 3, "none": [1.0, 26 / 27, 1.0]}
    write_report([make_sweep(tmp_path / "s", scores, samples={"val": 27, "test": 36})])
    for row in rows(tmp_path / "s"):
        assert 0 <= float(row["low"]) < float(row["high"]) <= 1
        if row["behind_low"]:
            assert float(row["behind_low"]) < float(row["behind_high"])


def test_the_page_says_of_how_many_samples_a_score_is(tmp_path):
    write_report([make_sweep(tmp_path / "s", EQUAL, samples={"train": 200, "val": 50, "test": 60})])
    text = page_text(tmp_path / "s")
    assert "on these samples, 50 for validation and 60 for test" in text
    # 1.96 · sqrt((0.912 · 0.088 + 0.854 · 0.146) / 50) = 0.1255
    assert "The scores are of 50 validation samples: with others, the lead would differ by up to 0.1255" in text
    write_report([make_sweep(tmp_path / "t", EQUAL)])  # an older version's
    assert "validation samples" not in page_text(tmp_path / "t")


def folds(path, scores, *typed):
    for norm, values in scores.items():
        for place, score in np.ndenumerate(np.array(values)):
            fold, *seed = place
            keys = (f"data.fold={fold}", "data.folds=5", *(f"seed={n}" for n in seed))
            make_run(path / f"{norm}{'-'.join(map(str, place))}", *BASE, f"norm={norm}", *keys, *typed, score=score)
    return path


def test_folds_are_called_folds_and_seeds_are_averaged_within_them(tmp_path):
    chance = np.random.default_rng(0)
    scores = {norm: level + chance.normal(0, 0.01, (5, 3)) for norm, level in (("batch", 0.9), ("group", 0.89))}
    found = comparison_of(folds(tmp_path / "s", scores))
    assert found.best.score.count == 5
    text = page_text(tmp_path / "s")
    assert "mean ± sd over 5 folds" in text
    assert "Nadeau and Bengio" in text
    # Nadeau and Bengio's corrected resampled t test, written out
    best, other = (scores[c.settings["norm"]].mean(1) for c in found.ranked)
    pairs = best - other
    half = 2.7764 * np.sqrt((1 / 5 + 1 / 4) * pairs.var(ddof=1))
    assert found.ranked[1].behind.high == pytest.approx(pairs.mean() + half, rel=1e-3)
    assert "seeds" not in {key for row in rows(tmp_path / "s") for key in row}


@pytest.mark.parametrize("key", ["data.val_fraction=0.1,0.3", "data.split_seed=1,2"])
def test_runs_on_other_validation_samples_are_not_ranked_together(key, tmp_path):
    name, _, values = key.partition("=")
    for number, (norm, value) in enumerate(zip(("batch", "group"), values.split(","), strict=True)):
        for seed in (1, 2):
            typed = (*BASE, f"norm={norm}", f"{name}={value}", f"seed={seed}")
            make_run(tmp_path / "s" / f"{number}{seed}", *typed, score=0.9 - number / 10)
    report = write_report([tmp_path / "s"])
    assert [len(found.ranked) for found in report.comparisons] == [1, 1]
    assert page_text(tmp_path / "s").count("is the only one with a val/acc") >= 2


@pytest.mark.parametrize(("wanted", "said"), [("[score]", False), ("[test/r2]", True), ("[score,test/acc]", True)])
def test_the_test_columns_were_not_looked_at_is_said_where_it_is_so(wanted, said, tmp_path):
    sweep = make_sweep(tmp_path / "s", {"batch": [0.9], "group": [0.8]})
    (sweep / "study.db").touch()
    (sweep / "multirun.yaml").write_text(f"hydra: {{sweeper: {{objectives: {wanted}}}}}\n")
    write_report([sweep])
    text = page_text(sweep)
    assert ("The test part was looked at" in text) == said
    assert ("the test columns were not looked at" in text) != said


def test_of_several_objectives_the_best_is_on_the_pareto_front(tmp_path):
    """Two configurations share no score; the one with the highest val/acc loses in both objectives."""
    sweep = tmp_path / "s"
    reached = {"batch": (0.95, 0.7, 9.0), "group": (0.90, 0.9, 3.0), "none": (0.80, 0.8, 1.0)}
    for norm, (score, tested, seconds) in reached.items():
        make_run(sweep / norm, *BASE, f"norm={norm}", score=score, metrics={"test/acc": tested}, seconds=seconds)
    (sweep / "study.db").touch()
    (sweep / "multirun.yaml").write_text("hydra: {sweeper: {objectives: [test/acc, seconds]}}\n")
    found = comparison_of(sweep)
    assert found.best.settings["norm"] == "group"
    text = page_text(sweep)
    assert "Pareto front" in text
    assert "norm=group" in text[text.index("The best again") :]


def test_unequal_budgets_and_skipped_batches_are_told(tmp_path):
    sweep = make_sweep(tmp_path / "s", {"batch": [0.9, 0.91]}, "trainer.max_epochs=30")
    for seed in (1, 2):
        make_run(
            sweep / f"x{seed}", *BASE, "norm=group", f"seed={seed}", "trainer.max_epochs=60", score=0.92, skipped=3
        )
    write_report([sweep])
    text = page_text(sweep)
    assert "Budgets are unequal: trainer.max_epochs is 30 and 60" in text
    assert "6 batches were left out of training by nonfinite=skip, in group" in text


@pytest.mark.slow
def test_the_winner_and_what_cannot_be_told_from_it_are_drawn(tmp_path):
    """A leader far ahead of forty that lie close together, and one far behind."""
    chance = np.random.default_rng(0)
    for number in range(42):
        level = {0: 0.99, 41: 0.2}.get(number, 0.80)
        for seed in (1, 2, 3):
            score = level + chance.normal(0, 0.001)
            make_run(
                tmp_path / "s" / f"{number}-{seed}",
                *BASE,
                f"optimizer.lr=0.{number + 10}",
                f"seed={seed}",
                score=score,
            )
    found = comparison_of(tmp_path / "s")
    assert found.best in drawn(found)
    assert found.configurations[-1] not in drawn(found)
    html = (tmp_path / "s" / "report.html").read_text()
    assert html[html.rindex('id="charts">') :].count("lr=0.1") >= 2


def test_marginals_of_a_search_are_not_called_effects(tmp_path):
    for number in range(4):
        typed = (*BASE, f"norm={('batch', 'group')[number % 2]}", f"optimizer.lr=0.{number + 1}")
        make_run(tmp_path / "s" / str(number), *typed, score=0.8 + number / 100)
    write_report([tmp_path / "s"])
    assert "Effect of each key" in page_text(tmp_path / "s")
    (tmp_path / "s" / "study.db").touch()
    write_report([tmp_path / "s"])
    text = page_text(tmp_path / "s")
    assert "Effect of" not in text
    assert "Scores by key" in text


def test_the_command_is_what_was_typed(tmp_path):
    sweep = make_sweep(tmp_path / "s")
    own = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.mode=MULTIRUN"]
    typed = ["model=net", "norm=batch,group", "seed=1,2", 'data.decimal=","', "name=s"]
    told = {"hydra": {"overrides": {"task": typed, "hydra": own}}}
    (sweep / "multirun.yaml").write_text(json.dumps(told))
    write_report([sweep])
    assert shlex.split(command_of(sweep)) == ["python", "train.py", "-m", *typed, *own[:2]]


@pytest.mark.slow
def test_the_pages_command_repeats_the_sweep(tmp_path):
    typed = ["model=net", "data=wine", "trainer=debug", "logger=none", "norm=group,batch", "seed=1,2"]
    own = ["hydra/sweeper=grid", "hydra.sweeper.max_batch_size=3"]
    train("-m", *typed, *own, "name=s", cwd=tmp_path)
    sweep = tmp_path / "outputs" / "s"
    before = rows(sweep)
    _, _, *copied = shlex.split(command_of(sweep))
    (tmp_path / "again").mkdir()
    train(*copied, cwd=tmp_path / "again")
    again = rows(tmp_path / "again" / "outputs" / "s")
    assert [{**row, "seconds": ""} for row in again] == [{**row, "seconds": ""} for row in before]


@pytest.mark.parametrize("damaged", rest_slow(["gone", [1, {"a": 2}], "text"], lambda case: case[0] == [1, {"a": 2}]))
def test_a_run_whose_overrides_are_unreadable_is_described_by_its_configuration(damaged, tmp_path):
    sweep = make_sweep(tmp_path / "s", EQUAL)
    for path in sweep.iterdir():
        file = path / "result.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"overrides": damaged}))
        config = (path / "config.yaml").read_text()
        (path / "config.yaml").write_text(re.sub(r"(?ms)^overrides:\n(- .*?\n)+", "", config))
    write_report([sweep])
    assert {row["norm"] for row in rows(sweep)} == {"batch", "group"}
    assert {row["seeds"] for row in rows(sweep)} == {"5"}
