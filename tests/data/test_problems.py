"""Everything that is wrong with a table is told at once, by training and by action=stats."""

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
