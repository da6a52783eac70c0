"""The page of a fair sweep: what it says of made-up runs, of broken ones and of damaged files."""

import json
import re

import numpy as np
import pytest
import vl_convert
from helpers.cases import rest_slow
from helpers.fair_folders import KEY, make_fair, make_job, rates
from helpers.fair_sweeps import fair_sweep
from helpers.reports import make_run, page_text, rows
from scipy import stats

from normlab.errors import ConfigError
from normlab.folder.writing import write_config
from normlab.report import write_report
from normlab.report.fair import charts
from normlab.report.fair.numbers import curves
from normlab.report.fair.standing import LUCK, contests, ranked
from normlab.report.fair.sweep import read_sweep
from normlab.report.fair.tables import markdown
from normlab.report.fair.words import across

TRIALS = {"batch": [0.80, 0.90, 0.895, None], "group": [0.70, 0.92, 0.80, 0.60], "none": [0.5, 0.6, None, None]}
FRESH = {"batch": [0.950, 0.953, 0.950, 0.940, 0.953], "group": [0.909, 0.903, 0.909, 0.908, 0.908]}
FRESH["none"] = [0.610, 0.613, 0.606, 0.609, 0.607]


def words_of(sweep):
    """summary.md on one line: what the page says, without the time that drawing it takes."""
    read = read_sweep(sweep)
    return " ".join(markdown(read, contests(read), []).split()).replace("\N{NO-BREAK SPACE}", " ")


def said(report, name):
    """What a page or a summary says, on one line and without the tags."""
    return page_text(report) if name == "report.html" else " ".join((report / name).read_text().split())


def test_the_answer_is_that_of_the_fresh_runs_on_the_test_part(tmp_path):
    sweep = make_fair(tmp_path / "s", TRIALS, FRESH)
    report = write_report([sweep])
    scores = np.array([FRESH[norm] for norm in ("batch", "group", "none")])
    rest = scores - scores.mean(1, keepdims=True) - scores.mean(0) + scores.mean()
    half = stats.studentized_range.isf(0.05, 3, 8) * np.sqrt((rest**2).sum() / 8 * (1 / 5 + LUCK))
    found = rows(sweep)
    assert [row["norm"] for row in found] == ["batch", "group", "none"]
    assert [row["letters"] for row in found] == ["a", "b", "c"]
    assert float(found[1]["behind_low"]) == pytest.approx(0.9492 - 0.9074 - half, rel=1e-4)
    width = stats.t.isf(0.025, 4) * scores[0].std(ddof=1) * np.sqrt(1 / 5 + LUCK)
    assert (float(found[0]["low"]), float(found[0]["high"])) == pytest.approx(
        (0.9492 - width, 0.9492 + width), abs=1e-6
    )
    wilson = stats.binomtest(0, 5).proportion_ci(method="wilson")
    assert (float(found[0]["lost_low"]), float(found[0]["lost_high"])) == pytest.approx(tuple(wilson), abs=1e-6)
    assert [row["trials_lost"] for row in found] == ["1", "0", "2"]
    assert [float(row[f"tuned {KEY}"]) for row in found] == [rates(4)[1]] * 3
    headline = "batch is best: test/acc 0.949 ± 0.005 (mean ± sd over 5 fresh seeds), more than noise ahead of"
    for name in ("report.html", "summary.md"):
        text = said(sweep, name).replace("\N{NO-BREAK SPACE}", " ")
        assert headline in text
        assert (
            "With net on wine (split 0, 2000 training and 1000 test samples, 30 epochs), each of 3 arms tuned by 4 "
            "trials of optimizer.lr from 0.001 to 1 (log), chosen by val/acc and then run again on 5 fresh seeds: batch"
        ) in text
        assert "told from group and none by Tukey’s studentized range at 5 %." in text
    assert str(report).startswith("batch is best: test/acc 0.949")


def test_arms_that_cannot_be_told_apart_share_a_letter_and_are_named(tmp_path):
    fresh = {"batch": [0.91, 0.89, 0.92, 0.88], "group": [0.90, 0.91, 0.88, 0.89], "none": [0.5, 0.51, 0.52, 0.49]}
    sweep = make_fair(tmp_path / "s", TRIALS, fresh)
    write_report([sweep])
    assert [row["letters"] for row in rows(sweep)] == ["a", "a", "b"]
    text = page_text(sweep)
    assert "batch leads with test/acc 0.900" in text
    assert "and cannot be told from group." in text
    assert "It is more than noise ahead of none." in text


def test_tuning_scores_do_not_count(tmp_path):
    lucky = TRIALS | {"none": [0.5, 0.99, None, None]}
    write_report([make_fair(tmp_path / "s", lucky, FRESH)])
    assert rows(tmp_path / "s")[-1]["norm"] == "none"


def test_an_arm_that_lost_fresh_runs_is_named_and_has_no_letter(tmp_path):
    fresh = FRESH | {"batch": [0.95, None, 0.96, None, 0.95]}
    sweep = make_fair(tmp_path / "s", TRIALS, fresh, refused={"ghost": "norm=ghost: size 8 is above the batch of 4"})
    report = write_report([sweep])
    text = page_text(sweep)
    by_norm = {row["norm"]: row for row in rows(sweep)}
    assert [by_norm["batch"][key] for key in ("letters", "fresh_lost", "low")] == ["", "2", ""]
    wilson = stats.binomtest(2, 5).proportion_ci(method="wilson")
    assert f"2 of 5 ({100 * wilson.low:.0f} to {100 * wilson.high:.0f} %)" in text
    assert "Fresh runs were lost: batch 2 of 5." in text
    assert "batch lost runs (†)" in text
    # batch with the worst score for each lost run is 0.83 + …: group is ahead of it
    assert text.startswith("group is best") or "group is best" in text
    assert "ahead of none, the others that can be compared" in text
    assert "norm=ghost did not run: norm=ghost: size 8 is above the batch of 4" in text
    assert "norm=ghost did not run" in str(report)


def test_an_arm_of_which_every_trial_was_lost_stands_last(tmp_path):
    trials, fresh = TRIALS | {"none": [None] * 4}, {arm: FRESH[arm] for arm in ("batch", "group")}
    text = words_of(make_fair(tmp_path / "s", trials, fresh))
    assert "Every trial of none was lost, and so there is no setting to run again." in text
    assert "batch is best" in text
    assert "| none | – | – | – | – | 0 | – | 4 of 4 | – |" in text


def test_a_sweep_under_way_says_so(tmp_path):
    fresh = {"batch": FRESH["batch"], "group": FRESH["group"][:3]}
    text = words_of(make_fair(tmp_path / "s", TRIALS, fresh))
    assert "The sweep is not at its end: fresh runs of group and none are to come." in text
    assert "No arm has a test score yet." in words_of(make_fair(tmp_path / "t", TRIALS, {"batch": []}))


def test_one_fresh_seed_says_nothing_about_noise(tmp_path):
    text = words_of(make_fair(tmp_path / "s", TRIALS, {arm: scores[:1] for arm, scores in FRESH.items()}))
    assert "batch leads with test/acc 0.950 (one fresh run)." in text
    assert "nothing is known about noise" in text
    assert "more than noise" not in text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"sampler": "tpe"}, "the sampler chose points by the scores of earlier ones"),
        pytest.param({"pruner": "median"}, "trials were ended early by their scores", marks=pytest.mark.slow),
        pytest.param(
            {"budget": "seconds", "seconds": 60},
            "the number of trials depends on how long they took",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_expected_best_is_drawn_only_where_no_point_depended_on_a_result(changes, reason, tmp_path):
    write_report([make_fair(tmp_path / "s", TRIALS, FRESH, **changes)])
    text = page_text(tmp_path / "s")
    assert ("Expected best val/acc" in text) == (reason is None)
    assert reason is None or f"is not drawn, as {reason}" in text


def test_every_number_of_the_charts_stands_in_a_table(tmp_path):
    sweep = make_fair(tmp_path / "s", TRIALS, FRESH)
    write_report([sweep])
    text = page_text(sweep)
    for arm, scores in TRIALS.items():
        for rate, score in zip(rates(4), scores, strict=True):
            assert re.search(rf"{arm} {rate:.5g} {'diverged' if score is None else f'{score:.3f}'}", text)
    assert "Ahead are batch from 1 to 3 and group at 4 trials." in text
    assert "3 0.899 0.890 0.575" in text  # the mean of the best over the four subsets of three trials
    assert text.count("The numbers of this chart") >= 3


def test_what_a_fair_sweep_is_reported_with(tmp_path):
    sweep = make_fair(tmp_path / "s", TRIALS, FRESH)
    make_run(tmp_path / "other" / "0", "model=net", "data=wine")
    with pytest.raises(ConfigError, match="is a fair sweep, .* report it alone"):
        write_report([sweep, tmp_path / "other"])


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 1}', "null"])
def test_a_damaged_file_is_one_line(damage, tmp_path):
    sweep = make_fair(tmp_path / "s", TRIALS, FRESH)
    (sweep / "fair.json").write_text(damage)
    with pytest.raises(ConfigError, match=r"fair\.json is empty, cut off or of another program"):
        write_report([sweep])


def test_a_newer_file_asks_for_a_newer_normlab(tmp_path):
    sweep = make_fair(tmp_path / "s", TRIALS, FRESH, format=2)
    with pytest.raises(ConfigError, match="has format 2, this normlab knows 1: update normlab"):
        write_report([sweep])


def test_a_newer_run_asks_for_a_newer_normlab(tmp_path):
    sweep = make_fair(tmp_path / "s", TRIALS, FRESH)
    result = json.loads((sweep / "3" / "result.json").read_text())
    (sweep / "3" / "result.json").write_text(json.dumps(result | {"format": 2}))
    with pytest.raises(ConfigError, match=r"3/result\.json has format 2, this normlab knows 1: update normlab"):
        write_report([sweep])


def many_data(path, means, lost=()):
    """A fair sweep over data sets: {norm: means}, one fresh run each, or two."""
    trials, fresh = {}, {}
    for norm, values in means.items():
        for number, value in enumerate(values):
            trials[norm, f"set{number}"] = [0.5, 0.6]
            fresh[norm, f"set{number}"] = [value, None if (norm, number) in lost else value + 0.01]
    return make_fair(path, trials, fresh, keys=("norm", "data"))


def test_over_five_data_sets_arms_are_ranked(tmp_path):
    means = {
        "batch": [0.9, 0.8, 0.7, 0.95, 0.6],
        "group": [0.8, 0.7, 0.6, 0.94, 0.7],
        "none": [0.1, 0.2, 0.3, 0.4, 0.5],
    }
    sweep = many_data(tmp_path / "s", means)
    found = contests(read_sweep(sweep))
    names, result = ranked(found)
    assert names == ["batch", "group", "none"]
    assert result.mean == pytest.approx([1.2, 1.8, 3.0])
    critical = stats.studentized_range.ppf(0.95, 3, np.inf) / np.sqrt(2) * np.sqrt(3 * 4 / 6 / 5)
    assert result.critical == pytest.approx(critical)
    assert across(found).startswith(
        "Over 5 data sets batch has the best mean rank, 1.20, not told from group, and told from the other 1 arm "
        f"(critical difference {critical:.2f}, Nemenyi at 5 %; Friedman’s test that all are equal: p = 0.015)."
    )
    write_report([sweep])
    assert "Over 5 data sets batch has the best mean rank" in page_text(sweep)
    assert "batch 1.20 1" in page_text(sweep)
    assert len(rows(sweep)) == 15
    assert ranked(found[:4]) is None


def test_a_lost_run_counts_as_the_worst_score_of_its_data_set(tmp_path):
    means = {"batch": [0.9] * 5, "group": [0.8] * 5, "none": [0.1] * 5}
    _, result = ranked(contests(read_sweep(many_data(tmp_path / "s", means, lost={("batch", 2)}))))
    assert result.mean == pytest.approx([1.2, 1.8, 3.0])  # (0.9 + 0.1) / 2 is behind 0.805


def test_a_confirmed_search_is_named_by_its_points_and_shows_the_search(tmp_path):
    """As hydra.sweeper.confirm writes it: an arm is a trial, and its settings are the trial's values."""
    sweep = make_fair(tmp_path / "s", {"batch": [0.90, 0.80, 0.70]}, {"batch": []})
    content = json.loads((sweep / "fair.json").read_text())
    number, arms = 3, []
    for trial, scores in enumerate((FRESH["group"], FRESH["batch"])):
        value = rates(3)[trial]
        runs = [number + place for place in range(5)]
        for seed, (job, score) in enumerate(zip(runs, scores, strict=True), 1):
            make_job(sweep / str(job), ["norm=batch", f"{KEY}={value}", f"seed={seed}"], 0.9, {"test/acc": score})
        number += 5
        own = {"job": trial, "point": {KEY: value}}
        fresh = [{"job": job, "replicate": seed} for seed, job in enumerate(runs, 1)]
        arms.append(content["arms"][0] | {"name": f"{KEY}={value}", "settings": {KEY: str(value)}, "trials": [own]})
        arms[-1] |= {"tuned": own | {"trial": 0}, "fresh": fresh}
    changed = {"confirm": True, "sampler": "tpe", "trials": 1, "seeds": 5, "arms": arms, "keys": [KEY]}
    (sweep / "fair.json").write_text(json.dumps(content | changed))
    found = contests(read_sweep(sweep))
    assert found[0].comparison.overlap == 0.0  # what was confirmed is a setting, and was not tuned
    write_report([sweep])
    text = page_text(sweep)
    best = f"lr={rates(3)[1]:.5g}"
    assert f"{best} is best: test/acc 0.949" in text.replace("\N{NO-BREAK SPACE}", " ")
    assert "the 2 best trials of a search by val/acc (tpe) run again on 5 fresh seeds" in text
    assert "Compared are the 2 trials that a search by val/acc ended with." in text
    assert "val/acc in the search" in text
    assert "The search, key by key" in text
    assert "How hard" not in text


def test_equal_scores_in_single_precision_share_the_first_place(tmp_path):
    fresh = {"batch": [0.9, 0.8, 0.7], "group": [0.7, 0.9 + 2e-8, 0.8]}
    text = words_of(make_fair(tmp_path / "s", TRIALS, fresh))
    assert "run again on 3 fresh seeds: group and batch share the highest test/acc 0.800." in text
    assert "Nobody is best: group and batch share test/acc 0.800 (mean over fresh seeds)." in text


def test_splits_share_samples_with_tuning_and_the_page_says_so(tmp_path):
    sweep = make_fair(tmp_path / "s", TRIALS, FRESH, over="data.split_seed")
    text = words_of(sweep)
    assert "mean ± sd over 5 fresh splits" in text
    assert "was in part trained on or validated on when the arms were tuned" in text
    assert "Nadeau and Bengio" in text


def test_tuned_to_the_end_of_the_space_is_a_caveat(tmp_path):
    assert "The tuned optimizer.lr of group is the lowest that was tried" in words_of(
        make_fair(tmp_path / "s", TRIALS | {"group": [0.9, 0.8, 0.7, 0.6]}, FRESH)
    )


def test_vega_draws_every_trial_and_puts_lost_ones_at_the_edge(tmp_path):
    """Rendered by vl-convert without a browser, which labels each mark with its data."""
    found = curves(contests(read_sweep(make_fair(tmp_path / "s", TRIALS, FRESH)))[0].standings, KEY, 3)
    svg = vl_convert.vegalite_to_svg(charts.trials(found, KEY, True, "val/acc", False).drawing)
    points = re.findall(r'aria-label="([^"]*)" role="graphics-symbol" aria-roledescription="point"', svg)
    drawn = [dict(part.split(": ") for part in label.split("; ")) for label in points]
    placed = {(each["arm"], float(each[KEY])): each for each in drawn}
    assert len(drawn) == len(placed) == 12
    for arm, scores in TRIALS.items():
        for rate, score in zip(rates(4), scores, strict=True):
            mark = placed[arm, rate]
            kind = "lost" if score is None else "off" if (arm, score) == ("none", 0.5) else None
            assert mark.get("kind") == kind
            if kind is None:
                assert float(mark["val/acc"]) == score


ARMS = [("norm=batch,group", "With net on wine ("), ("model=net,mlp", "On wine (")]


@pytest.mark.parametrize(("arms", "on"), rest_slow(ARMS, lambda case: case in ARMS[:1]))
def test_the_page_reads_what_the_sweep_writes(tmp_path, arms, on):
    """A real plan of a fair sweep, whose jobs are not trained."""
    launcher, record = fair_sweep(tmp_path, arms, "fair.trials=4", "fair.seeds=3")
    for number, config in launcher.launched.items():
        write_config(tmp_path / str(number), config)
    (contest,) = contests(read_sweep(tmp_path))
    assert {each.arm.name for each in contest.standings} == {arm["name"] for arm in record["arms"]}
    for standing in contest.standings:
        (own,) = (arm for arm in record["arms"] if arm["name"] == standing.arm.name)
        assert standing.arm.tuned.point == own["tuned"]["point"]
        assert standing.configuration.score.count == 3
        assert standing.lost_trials == sum(trial["point"][KEY] > 0.1 for trial in own["trials"])
    text = words_of(tmp_path)
    assert "each of 2 arms tuned by 4 trials of optimizer.lr from" in text
    assert on in text


def test_where_less_is_better_the_lowest_is_best(tmp_path):
    trials = {"batch": [0.9, 0.2, 0.3, None], "group": [0.4, 0.3, 0.5, 0.9]}
    fresh = {"batch": [0.25, 0.26, 0.24, 0.25], "group": [0.35, 0.36, 0.35, 0.33]}
    sweep = make_fair(tmp_path / "s", trials, fresh, mode="min")
    write_report([sweep])
    text = page_text(sweep).replace("\N{NO-BREAK SPACE}", " ")
    assert "batch is best: test/loss 0.2500 ± 0.0082" in text
    assert "batch (lr=0.01334) has the lowest test/loss" in text
    assert "1 0.5750 0.5250" in text  # a mean over the arm's trials, the lost one with the highest loss of all
    (contest,) = contests(read_sweep(sweep))
    svg = vl_convert.vegalite_to_svg(charts.trials(curves(contest.standings, KEY, 3), KEY, True, "loss", True).drawing)
    lost = re.search(r'aria-label="[^"]*loss: ([\d.]+); arm: batch; kind: lost"', svg)
    assert float(lost.group(1)) > 0.2 + 3 * (0.4 - 0.2)  # where the axis of the scores ends, upwards


def test_the_axis_of_the_scores_shows_the_better_half():
    assert charts.bounds([0.1, 0.9, 0.95, 0.97], minimized=False) == pytest.approx((0.91, 0.97))
    assert charts.bounds([0.9, 0.95, 0.97], minimized=False) == pytest.approx((0.91, 0.97))
    assert charts.bounds([5.0, 0.3, 0.2], minimized=True) == pytest.approx((0.2, 0.5))
    assert charts.bounds([0.4, 0.3, 0.2], minimized=True) == (0.2, 0.4)
    low, high = charts.bounds([0.5, 0.5], minimized=False)
    assert low < high == 0.5
