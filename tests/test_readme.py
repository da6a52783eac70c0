"""benchmarks/readme.py: it reads the texts as they stand, and tells a figure that is no longer true from noise."""

import random
import re
import statistics
import sys

import pytest
from helpers.cases import ROOT
from hypothesis import given
from hypothesis import strategies as some

sys.path.append(str(ROOT / "benchmarks"))
import figures
import readme

README = (ROOT / "README.md").read_text()
OVER = "Mean ± sd over `seed=0…9` for digits and over `data.split_seed=0…4`\nfor the tables"


def row(command: str, metric: str, mean: float, sd: float, seconds: str) -> str:
    return f"| `python train.py{command}` | {metric} {mean:.3f} ± {sd:.3f} | {seconds} s |"


def test_every_row_and_every_quoting_sentence_of_the_texts_is_found():
    rows = figures.score_rows(README)
    assert [one.line for one in rows] == [
        place for place, line in enumerate(README.splitlines(), 1) if line.startswith("| `python train.py")
    ]
    assert len(rows) >= 5
    for sentence in readme.SENTENCES:
        line, found = readme.find(sentence)
        text = (ROOT / sentence.file).read_text().splitlines()
        assert len(found) == len(sentence.cells)
        assert found[0] in text[line - 1]
        assert all(figures.number(one) is not None for one in found)


def test_every_table_of_the_benchmarks_is_read():
    text = (ROOT / "benchmarks" / "README.md").read_text()
    tables = figures.tables(text)
    assert len(tables) == len(re.findall(r"^\|[ |-]+\|$", text, re.MULTILINE)) >= 10
    lines = sum(line.startswith("|") for line in text.splitlines())
    assert sum(len(table.rows) for table in tables) == lines - 2 * len(tables), "two rows have one name"
    assert all(finding.verdict == "as said" for finding in figures.compare_tables("a", tables, tables))


def test_what_the_readme_quotes_of_the_benchmarks_stands_there(monkeypatch):
    tables = figures.tables((ROOT / "benchmarks" / "README.md").read_text())
    monkeypatch.setattr(readme, "printed", lambda script: tables)
    monkeypatch.setattr(readme, "has_bfloat16", lambda: True)
    quoting = [sentence for sentence in readme.SENTENCES if sentence.script in ("startup", "mynet")]
    assert len(quoting) >= 4
    for sentence in quoting:
        assert {finding.verdict for finding in readme.quoted(sentence)} == {"as said"}


@given(some.floats(-1, 1), some.floats(0, 0.5), some.integers(1, 99), some.integers(0, 99))
def test_a_row_is_read_back(mean, sd, seconds, more):
    text = "\n".join(
        [
            row("", "accuracy", 0.5, 0.1, "7"),
            row(" model=net data=x", "R²", mean, sd, f"{seconds}–{seconds + more}"),
            OVER,
        ]
    )
    digits, table = figures.score_rows(text)
    assert (digits.overrides, digits.varied, digits.values) == ((), "seed", tuple(range(10)))
    assert (table.line, table.overrides, table.metric) == (2, ("model=net", "data=x"), "R²")
    assert (table.mean, table.sd) == pytest.approx((mean, sd), abs=5.1e-4)
    assert table.seconds == (seconds, seconds + more)
    assert (table.varied, table.values) == ("data.split_seed", (0, 1, 2, 3, 4))


@pytest.mark.parametrize("broken", ["| `python train.py data=a` | accuracy 0.9 | 8 s |", "no table"])
def test_a_table_that_cannot_be_read_is_no_table_that_agrees(broken):
    with pytest.raises(ValueError, match=r"README.md"):
        figures.score_rows(f"{broken}\n{OVER}")
    with pytest.raises(ValueError, match="over which seeds"):
        figures.score_rows(row("", "accuracy", 0.5, 0.1, "7"))


def measured(monkeypatch, line: str, scores: list[float], quick: bool) -> figures.Finding:
    """What is found of the README's row `line` where its first runs have these scores, in either precision."""
    (told,) = figures.score_rows(f"{line}\n{OVER}")

    def run(overrides, folder, quick):
        swept = dict(override.split("=", 1) for override in overrides if override != "-m")
        assert not quick
        return [
            {
                "overrides": [f"{told.varied}={value}", f"trainer.precision={precision}"],
                "metrics": {"test/acc": scores[int(value)]},
            }
            for value in swept[told.varied].split(",")
            for precision in swept["trainer.precision"].split(",")
        ]

    monkeypatch.setattr(readme.experiments, "run", run)
    monkeypatch.setattr(readme, "score_rows", lambda _: [told])
    (finding,) = readme.scores(quick)
    return finding


@pytest.mark.parametrize("quick", [False, True])
def test_scores_of_the_same_runs_agree_and_moved_ones_do_not(monkeypatch, quick):
    """Of 100 rows made up from runs, whole and by half of the seeds."""
    draws = random.Random(0)
    false = missed = 0
    for _ in range(100):
        scores = [draws.gauss(0.98, 0.004) for _ in range(10)]
        line = row("", "accuracy", statistics.mean(scores), statistics.stdev(scores), "20")
        false += measured(monkeypatch, line, scores, quick).verdict == "DIFFERS"
        moved = [score - (0.012 if quick else 0.008) for score in scores]
        missed += measured(monkeypatch, line, moved, quick).verdict == "as said"
    assert false <= (1 if quick else 0)
    assert missed <= (1 if quick else 0)


def test_the_figure_that_stood_in_the_readme_and_was_not_true_is_told(monkeypatch):
    """0.983 ± 0.004 over seeds 0–4 stood there when a run gave these."""
    found = [0.9667, 0.9833, 0.9833, 0.9833, 0.9806]
    monkeypatch.setattr(sys.modules[__name__], "OVER", OVER.replace("0…9", "0…4"))
    finding = measured(monkeypatch, row("", "accuracy", 0.983, 0.004, "20"), found, quick=False)
    assert finding.verdict == "DIFFERS"
    assert finding.where == "README.md:1"


def test_a_ratio_that_moved_is_told_and_a_slower_machine_is_not():
    said = figures.tables("| | ms | × the loop |\n| --- | --- | --- |\n| ours | 10 | 2.60 |\n| theirs | 1,000 | 1.00 |")
    now = figures.tables("| | ms | × the loop |\n| --- | --- | --- |\n| ours | 18 | 1.60 |\n| theirs | 1,800 | 1.00 |")
    differ = [one.about for one in figures.compare_tables("a", said, now) if one.verdict == "DIFFERS"]
    assert differ == ["ours, × the loop"]


def test_a_figure_that_differs_ends_it_with_the_line_to_edit(monkeypatch, capsys):
    untrue = figures.Finding("README.md:11", "train.py", "0.983", "0.979", "DIFFERS")
    monkeypatch.setattr(sys, "argv", ["readme.py", "--quick"])
    monkeypatch.setattr(readme, "PARTS", {"scores": lambda quick: [untrue]})
    with pytest.raises(SystemExit) as ended:
        readme.main()
    assert ended.value.code == 1
    assert "edit README.md:11: train.py: 0.983 is 0.979" in capsys.readouterr().out
    monkeypatch.setattr(readme, "PARTS", {"scores": lambda quick: [readme.replace(untrue, verdict="as said")]})
    readme.main()
