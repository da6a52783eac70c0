"""The page of a laboratory's sweep: what it says of made-up runs, of half a sweep and of damaged files."""

import json
import re

import pytest
import vl_convert
from helpers.claim_folders import claim, make_laboratory
from helpers.reports import page_text, rows
from scipy import stats

from normlab.errors import ConfigError
from normlab.report import write_report
from normlab.report.after import report_sweep
from normlab.report.claims.findings import read_laboratory
from normlab.report.claims.tables import folders, markdown
from normlab.report.claims.verdict import Finding
from normlab.report.fair.standing import LUCK

GOOD, BAD = [0.95, 0.96, 0.94, 0.955, 0.945], [0.80, 0.82, 0.78, 0.81, 0.79]
CLEAR = {"batch": GOOD, "none": BAD}
DIFFERENCE = {"batch": 1, "none": -1}


def plain(markdown):
    return " ".join(markdown.split()).replace("\N{NO-BREAK SPACE}", " ")


def words(folder):
    """What the page and the summary say, each on one line."""
    return page_text(folder), plain((folder / "summary.md").read_text())


def summary(folder):
    """summary.md on one line, without the time that drawing the page takes."""
    return plain(markdown(read_laboratory(folder), []))


def test_each_claim_has_its_verdict_its_numbers_and_their_runs(tmp_path):
    anchor = {"source": "Wu & He 2018", "figure": "24.1", "ours": "{batch} beside {effect 1 of speed}"}
    first = claim("speed", {"digits": CLEAR, "wine": CLEAR}, DIFFERENCE, anchors=[anchor], dissent=["Not so."])
    second = claim("rates", {"digits": CLEAR, "wine": {"batch": BAD, "none": GOOD}}, DIFFERENCE)
    sweep = make_laboratory(tmp_path / "s", first, second)
    report = write_report([sweep])
    first_row, *_ = found = rows(sweep)
    difference = [one - other for one, other in zip(GOOD, BAD, strict=True)]
    half = stats.t.isf(0.025, 4) * stats.tstd(difference) * (1 / 5 + LUCK) ** 0.5
    assert [row["verdict"] for row in found] == ["supported"] * 2 + ["it depends"] * 2
    assert [row["finding"] for row in found] == ["holds", "holds", "holds", "fails"]
    assert (float(first_row["low"]), float(first_row["high"])) == pytest.approx((0.15 - half, 0.15 + half), abs=1e-6)
    why = f"The effect is there on digits (0.150, 95 % interval {0.15 - half:.3f} to {0.15 + half:.3f}) and wine"
    for text in words(sweep):
        assert "Of 2 claims 1 is supported and 1 depends on the data and the network." in text
        assert why in text
        assert "On wine it is the opposite." in text
        assert "0.950 ± 0.008 (digits) and 0.950 ± 0.008 (wine) beside 0.150 (digits) and 0.150 (wine)" in text
        assert "Not so." in text
        assert (
            "its 95 % interval lies above 0; it fails where the whole interval lies below 0.02 (opposite: below 0)"
            in text
        )
    assert "| digits | none | lr=0.005623, lowest tried | 9–13 | 0.800 ± 0.016 |" in words(sweep)[1]
    assert "supported: What speed says. The effect is there on digits (0.150" in str(report)
    assert "rates fails" not in str(report)


def test_the_same_folder_gives_the_same_page(tmp_path):
    sweep = make_laboratory(tmp_path / "s", claim("speed", {"digits": CLEAR, "wine": CLEAR}, DIFFERENCE))
    pages = []
    for out in ("a", "b"):
        write_report([sweep], tmp_path / out)
        pages.append([(tmp_path / out / name).read_bytes() for name in ("report.html", "summary.md", "summary.csv")])
    assert pages[0] == pages[1]
    assert "This is supported." in page_text(tmp_path / "a")


def test_a_page_is_made_again_once_more_is_measured(tmp_path, capsys):
    sweep = make_laboratory(tmp_path / "s", claim("speed", {"digits": CLEAR, "wine": CLEAR}, DIFFERENCE))
    measured = sweep / "2" / "measured.json"
    whole = measured.read_text()
    measured.unlink()
    assert report_sweep(sweep, 0) == 0
    assert "There is no verdict on half a design: fresh runs of digits: 1 not measured." in capsys.readouterr().out
    measured.write_text(whole)
    assert report_sweep(sweep, 0) == 0
    assert "supported: What speed says." in capsys.readouterr().out


def test_half_a_sweep_has_no_verdict_and_says_what_is_lacking(tmp_path):
    begun = claim("begun", {"digits": CLEAR, "wine": {"batch": GOOD, "none": BAD[:3]}}, DIFFERENCE)
    absent = claim("absent", {"digits": CLEAR, "wine": CLEAR}, DIFFERENCE, missing={"cifar10": "no such data"})
    whole = claim("whole", {"digits": CLEAR, "wine": CLEAR}, DIFFERENCE)
    sweep = make_laboratory(tmp_path / "s", begun, absent, whole)
    assert [each.verdict.value for each in read_laboratory(sweep).results] == ["no verdict", "no verdict", "supported"]
    text = summary(sweep)
    assert "There is no verdict on half a design: fresh runs of wine: 2 to come." in text
    assert "There is no verdict on half a design: cifar10 was not run: no such data." in text
    assert "The sweep is not at its end: 2 fresh runs are to come. The same command goes on." in text


def test_what_was_measured_of_an_earlier_run_does_not_count(tmp_path):
    sweep = make_laboratory(tmp_path / "s", claim("speed", {"digits": CLEAR, "wine": CLEAR}, DIFFERENCE))
    measured = sweep / "2" / "measured.json"
    measured.write_text(json.dumps(json.loads(measured.read_text()) | {"config_hash": "another"}))
    assert "fresh runs of digits: 1 not measured" in summary(sweep)


def test_runs_that_diverged_count_as_always_saying_the_most_frequent_class(tmp_path):
    lost = {"batch": GOOD, "none": [None] * 5}
    never = {"batch": GOOD, "none": None}
    made = claim("speed", {"digits": lost, "wine": never}, DIFFERENCE)
    sweep = make_laboratory(tmp_path / "s", made, trials=5)
    (effects,) = zip(*read_laboratory(sweep).results[0].judged.effects, strict=True)
    assert [(each.finding, each.diverged) for each in effects] == [(Finding.HOLDS, 5)] * 2
    assert [each.estimate.mean for each in effects] == pytest.approx([0.85, 0.85])  # 0.95 less 0.1
    text = summary(sweep)
    assert "| digits | none | lr=0.001995, lowest tried | 15–19 | 0.100 ± 0.000 | 0.100 to 0.100 | 5 of 5 |" in text
    assert "| wine | none | – | – | 0.100 ± 0.000 | 0.100 to 0.100 | in all 5 trials |" in text
    assert "The sweep is not at its end" not in text
    few = summary(make_laboratory(tmp_path / "few", made, trials=4))  # a verdict needs five fresh runs
    assert "There is no verdict on half a design: fresh runs of wine: 5 without a setting, since all trials" in few
    assert "The sweep is not at its end" not in few
    twice = {"batch": GOOD * 2, "none": BAD * 2}
    longer = claim("speed", {"digits": twice, "wine": {"batch": GOOD * 2, "none": None}}, DIFFERENCE)
    text = summary(make_laboratory(tmp_path / "longer", longer, seeds=10, trials=8))  # more seeds than trials
    assert "| wine | none | – | – | 0.100 ± 0.000 | 0.100 to 0.100 | in all 8 trials |" in text
    assert "no verdict" not in text
    assert "The sweep is not at its end" not in text
    other = claim("shifted", {"digits": lost, "wine": CLEAR}, DIFFERENCE, measure="shift")
    assert "it is unclear on digits (5 runs diverged)" in summary(make_laboratory(tmp_path / "t", other))


def test_charts_draw_each_pair_and_each_run(tmp_path):
    lost = {"batch": GOOD, "none": [*BAD[:4], None]}
    write_report([make_laboratory(tmp_path / "s", claim("speed", {"digits": CLEAR, "wine": lost}, DIFFERENCE))])
    html = (tmp_path / "s" / "report.html").read_text()
    overview, *others = json.loads(re.search(r'id="charts">(.*?)</script>', html)[1])
    assert [chart["name"] for chart in (overview, *others)] == ["claims", "speed-digits", "speed-wine"]
    assert re.search(r"What speed says\. digits 0\.150 0\.1.. to 0\.1.. 7\.5 holds", page_text(tmp_path / "s"))
    assert "crosses those that diverged" in page_text(tmp_path / "s")
    for chart, diverged in zip(others, (0, 1), strict=True):
        svg = vl_convert.vegalite_to_svg(chart["drawing"])
        rings = re.findall(r'ended: (\w+); seed: \d; value: [^"]*" role="graphics-symbol"', svg)
        assert sorted(rings) == ["diverged"] * diverged + ["finished"] * (10 - diverged)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 1}', '{"format": 1, "form": "short", "claims": []}'])
def test_a_damaged_file_is_one_line(damage, tmp_path):
    sweep = make_laboratory(tmp_path / "s", claim("speed", {"digits": CLEAR, "wine": CLEAR}, DIFFERENCE))
    (sweep / "claims.json").write_text(damage)
    with pytest.raises(ConfigError, match=r"claims\.json is empty, cut off or of another program"):
        write_report([sweep])


def test_a_newer_file_asks_for_a_newer_normlab(tmp_path):
    sweep = make_laboratory(tmp_path / "s", claim("speed", {"digits": CLEAR, "wine": CLEAR}, DIFFERENCE))
    (sweep / "claims.json").write_text(json.dumps(json.loads((sweep / "claims.json").read_text()) | {"format": 2}))
    with pytest.raises(ConfigError, match="has format 2, this normlab knows 1: update normlab"):
        write_report([sweep])


def test_an_effect_of_an_unknown_arm_is_refused(tmp_path):
    unknown = claim("speed", {"digits": CLEAR, "wine": CLEAR}, {"batch": 1, "group": -1})
    with pytest.raises(ConfigError, match=r"claims\.json is"):
        write_report([make_laboratory(tmp_path / "s", unknown)])


def test_folders_in_a_row_are_named_by_their_ends():
    assert folders(["12", "13", "14", "9", "20", "21"]) == "9, 12–14, 20–21"
