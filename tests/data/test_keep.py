"""data.keep: predictions carry the columns that a person names, whatever is learned from."""

import numpy as np
import pandas as pd
import pytest

from normlab import compose, run
from normlab.errors import ConfigError

ROWS = 60


@pytest.fixture
def table(tmp_path, monkeypatch) -> pd.DataFrame:
    """Customers with a number, a date of entry and two features, in customers.csv and customers.parquet."""
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(ROWS, 2)).round(3)
    dates = [f"2026-01-{day % 28 + 1:02d}" for day in range(ROWS)]
    ids = np.random.default_rng(1).permutation(ROWS) + 1000
    frame = pd.DataFrame({"Kunden-ID": ids, "entry": dates, "a": x[:, 0], "b": x[:, 1]})
    frame["class"] = np.where(x.sum(1) > 0, "yes", "no")
    frame.to_csv("customers.csv", index=False)
    frame.to_parquet("customers.parquet")
    return frame


def made(kind: str, *overrides: str) -> list[str]:
    small = ["model=net", "trainer=debug", "logger=none", "data.batch_size=16", "name=a"]
    return [*small, f"data={kind}", f"data.path=customers.{kind}", "data.target=class", *overrides]


KEEP = "data.keep=[Kunden-ID,entry]"


@pytest.mark.parametrize("kind", ["csv", pytest.param("parquet", marks=pytest.mark.slow)])
def test_predictions_of_the_test_part_carry_the_columns_of_their_rows(kind, table):
    result = run(compose(made(kind, KEEP, "+trainer.limit_predict_batches=1.0")))
    assert result.task.network.fc1.in_features == 2  # a and b: the others are carried alone
    found = run(compose(["action=predict", "name=a"])).predictions
    assert list(found)[:3] == ["sample", "Kunden-ID", "entry"]
    rows = table.iloc[[int(number) - 1 for number in found["sample"]]]
    assert found["Kunden-ID"].astype(int).tolist() == rows["Kunden-ID"].tolist()
    assert found["entry"].tolist() == rows["entry"].tolist()
    assert found["target"].tolist() == rows["class"].tolist()


def test_new_rows_carry_theirs_and_have_to_have_them(table):
    run(compose(made("csv", KEEP)))
    table.drop(columns="class").iloc[::-1].to_csv("new.csv", index=False)
    run(compose(["action=predict", "name=a", "input=new.csv"]))
    written = pd.read_csv("outputs/a/predict/predictions.csv")
    assert written["Kunden-ID"].tolist() == table["Kunden-ID"].tolist()[::-1]
    assert written["sample"].tolist() == list(range(1, ROWS + 1))
    table[["a", "b"]].to_csv("less.csv", index=False)
    with pytest.raises(ConfigError, match="input=less.csv: these columns of data.keep are missing: Kunden-ID, entry"):
        run(compose(["action=predict", "name=a", "input=less.csv"]))


def test_a_kept_column_is_learned_from_where_it_is_listed(table):
    result = run(compose(made("csv", "data.keep=[a]", "data.numeric=[a]", "data.drop=[Kunden-ID,entry]")))
    assert result.task.network.fc1.in_features == 2


def test_columns_that_are_not_there_or_are_there_anyway_are_refused(table):
    for keep, message in (
        ("[Kundn-ID]", "data.keep: data.path=customers.csv has no column Kundn-ID; did you mean Kunden-ID"),
        ("[class]", "predictions have the target anyway"),
    ):
        with pytest.raises(ConfigError, match=message):
            compose(made("csv", f"data.keep={keep}"))
    table.rename(columns={"a": "prediction"}).to_csv("customers.csv", index=False)
    with pytest.raises(ConfigError, match="call it something else"):
        compose(made("csv", "data.keep=[prediction]"))
