"""Everything that is wrong with a table is told at once, by training and by action=stats."""

import json
from pathlib import Path

import pandas as pd
import pytest

from normlab import compose, run
from normlab.errors import ConfigError, Problems

WRONG = [
    "the target column class is empty in 2 of 40 rows, first in row 3 and 1 more (9): leave these rows out",
    "column age holds numbers, but '?' in row 2 and 1 more (8): mend it, or set data.missing=['?'].*data.drop=[age]",
    "column entry holds dates, such as '2026-01-01'.* or set data.categorical=[entry] or data.drop=[entry]",
    "column size has 'inf' in row 5; expected numbers within .* data.drop=[size]",
]


@pytest.fixture
def typed(tmp_path, monkeypatch) -> list[str]:
    """A table with a mistake in each of four columns, and one column without any."""
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"age": [str(20 + row) for row in range(40)], "size": ["1.5"] * 40})
    frame["entry"] = [f"2026-01-{row % 28 + 1:02d}" for row in range(40)]
    frame["class"], frame["fine"] = ["yes", "no"] * 20, [f"{row % 7}.5" for row in range(40)]
    frame.loc[[1, 7], "age"], frame.loc[4, "size"], frame.loc[[2, 8], "class"] = "?", "inf", ""
    frame.to_csv("dirty.csv", index=False)
    return ["model=net", "data=csv", "data.path=dirty.csv", "data.target=class", "logger=none", "trainer=debug"]


@pytest.mark.parametrize("action", ["fit", "stats"])
def test_a_dirty_table_is_told_whole(action, typed):
    with pytest.raises(ConfigError) as error:
        run(compose([*typed, f"action={action}", "name=a"]))
    head, *lines = str(error.value).splitlines()
    assert head == "4 problems:"
    for line, wanted in zip(lines, WRONG, strict=True):
        for text in wanted.split(".*"):
            assert text in line


def stats_of(typed) -> tuple[str, dict, list[str]]:
    """stats.txt, result.json, and what was refused."""
    with pytest.raises(ConfigError) as error:
        run(compose([*typed, "action=stats", "name=s"]))
    folder = Path("outputs/s/stats")
    messages = error.value.messages
    return (folder / "stats.txt").read_text(), json.loads((folder / "result.json").read_text()), list(messages)


def test_stats_of_a_dirty_table_hold_what_can_be_read_and_all_that_cannot(typed):
    pd.read_csv("dirty.csv").drop(index=[1, 2, 4, 7, 8], columns="entry").to_csv("clean.csv", index=False)
    run(compose([*typed, "data.path=clean.csv", "action=stats", "name=s"]))  # its result is not the folder's any more
    text, result, messages = stats_of(typed)
    table = pd.read_csv("dirty.csv")
    ages = pd.to_numeric(table["age"], errors="coerce").dropna()
    (line,) = (line for line in text.splitlines() if line.startswith("age "))
    figures = [
        2,
        ages.nunique(),
        *(f"{value:.4g}" for value in (ages.mean(), ages.std(ddof=0), ages.min(), ages.max())),
    ]
    assert line.split()[1:] == [str(figure) for figure in figures]
    assert any(line.split()[:3] == ["class", "2", "2"] for line in text.splitlines())
    assert text.endswith("problems\n" + "".join(f"  {message}\n" for message in messages))
    assert len(messages) == 4
    assert (result["status"], result["metrics"]["train"], result["metrics"]["missing"]) == ("refused", 40, 5)
    assert not Path("outputs/s/stats/stats.png").exists()


def test_all_files_that_are_not_there_are_named(typed):
    with pytest.raises(ConfigError) as error:
        compose([*typed, "data.val_path=v.csv", "data.test_path=t.csv"])
    assert [message.split(":")[0] for message in error.value.messages] == [
        "data.val_path=v.csv",
        "data.test_path=t.csv",
    ]


@pytest.mark.parametrize("action", ["fit", "stats"])
def test_rows_of_another_length_and_other_files_are_told_with_the_columns(action, typed):
    lines = Path("dirty.csv").read_text().splitlines()
    lines[10], lines[12] = "1,2", "1,2,3,4,5,6"
    Path("dirty.csv").write_text("\n".join(lines) + "\n")
    Path("val.csv").write_bytes(b"age,size\n\xe4,1\n")
    with pytest.raises(ConfigError) as error:
        run(compose([*typed, f"action={action}", "data.val_path=val.csv", "name=s"]))
    uneven, unreadable, gaps, *others = error.value.messages
    assert "line 11 has another number of columns (2) than the first (5), likewise 1 more (13)" in uneven
    assert "data.val_path=val.csv: line 2 is not in UTF-8" in unreadable
    assert "empty in 2 of 38 rows, first in row 3 and 1 more (9)" in gaps
    assert len(others) == 3
    if action == "stats":
        assert json.loads(Path("outputs/s/stats/result.json").read_text())["metrics"]["train"] == 38


def test_what_training_would_refuse_later_is_told_beside_the_statistics(typed):
    frame = pd.DataFrame({"x": range(60), "y": ["a", "b"] * 30})
    frame.assign(y=["c", *frame["y"][1:]]).to_csv("dirty.csv", index=False)
    text, _, messages = stats_of([*typed, "data.target=y"])
    assert messages == ["classes with fewer than two samples to split: c (1); add samples, or leave them out"]
    assert "\nx " in text
    many = pd.DataFrame({"id": [f"n{row}" for row in range(3000)], "y": ["a", "b"] * 1500})
    many.to_csv("dirty.csv", index=False)
    text, result, messages = stats_of([*typed, "data.target=y", "data.categorical=[id]"])
    assert ["column id has" in message and "data.categories=embed" in message for message in messages] == [True]
    assert "\na " in text  # the table could be split, so its classes are counted
    assert (result["status"], result["metrics"]["train"]) == ("refused", 1950)


def test_the_keys_that_are_named_answer_the_problems(typed):
    table = pd.read_csv("dirty.csv", dtype=str, keep_default_na=False)
    table[table["class"] != ""].to_csv("dirty.csv", index=False)
    keys = ["data.missing=['?']", "data.drop=[entry,size]"]
    assert run(compose([*typed, *keys, "data.batch_size=8", "name=a"])).score is not None


def test_one_problem_is_one_line_and_the_same_one_is_told_once():
    problems = Problems()
    for _ in range(2):
        with problems.gather():
            raise ConfigError("a")
    with pytest.raises(ConfigError, match=r"^a$"):
        problems.check()
    with problems.gather():
        problems.check()
    with problems.gather():
        raise ConfigError("b")
    with pytest.raises(ConfigError, match=r"^2 problems:\n  a\n  b$"):
        problems.check()
    Problems().check()
