"""Tables from files: what is read, told apart, made into numbers, kept for new files, and refused."""

import csv
import logging
import os
import urllib.error
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.processes import train
from helpers.samples import new_samples
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from normlab import run
from normlab.config.compose import compose
from normlab.data import openml
from normlab.data.csv import Csv
from normlab.data.openml import OpenML
from normlab.data.parquet import Parquet
from normlab.data.tables import text
from normlab.data.tables.embeddings import Embeddings
from normlab.errors import ConfigError
from normlab.runner.build import build


def people(rows: int = 60) -> pd.DataFrame:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": random.integers(18, 90, rows).astype(object),
            "income": random.normal(3e4, 1e4, rows).round(2),
            "job": random.choice(["clerk", "cook", "pilot"], rows).astype(object),
            "answer": random.choice(["no", "yes"], rows),
        }
    )
    frame.loc[random.choice(rows, 6, replace=False), "income"] = None
    frame.loc[random.choice(rows, 6, replace=False), "job"] = None
    return frame


@pytest.fixture
def written(tmp_path):
    """Writes a frame, or text as it is, and returns the path."""

    def go(content, name: str = "table.csv", **keys) -> Path:
        path = tmp_path / name
        if isinstance(content, pd.DataFrame):
            content.to_csv(path, index=False, **keys)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return go


def data_of(path, target: str = "answer", kind=Csv, **keys):
    data = kind(str(path), target, **keys)
    data.setup()
    return data


def refusal(path, target: str = "answer", **keys) -> str:
    with pytest.raises(ConfigError) as error:
        data_of(path, target, **keys)
    assert "\n" not in str(error.value)
    return str(error.value)


def everything(data) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.cat(part) for part in zip(*data.splits.values(), strict=True))


def table(columns: dict, rows: int = 40) -> pd.DataFrame:
    """Columns beside a feature and an answer that are as they should be."""
    plain = {"x": np.arange(rows) * 0.5, "answer": ["no", "yes"] * (rows // 2)}
    return pd.DataFrame(plain | columns)


# reading and preprocessing


def test_features_are_those_of_scikit_learn(written):
    frame = people()
    data = data_of(written(frame))
    rows, _ = data.load()["train"]
    raw = rows.frame.assign(job=frame["job"].fillna("").to_numpy())
    at = dict(zip(("train", "val", "test"), split_places(data), strict=True))
    reference = ColumnTransformer(
        [
            ("number", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["age", "income"]),
            ("gap", MissingIndicator(features="missing-only", error_on_new=False), ["age", "income"]),
            ("job", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["job"]),
        ]
    ).fit(raw.iloc[at["train"]])
    for part, places in at.items():
        expected = torch.tensor(reference.transform(raw.iloc[places]), dtype=torch.float32)
        torch.testing.assert_close(data.splits[part][0], expected, rtol=1e-6, atol=1e-6)
        assert [data.class_names[label] for label in data.splits[part][1]] == frame["answer"][places].tolist()
    assert data.preprocessing.feature_names == [
        "age",
        "income",
        "income missing",
        "job=",
        "job=clerk",
        "job=cook",
        "job=pilot",
    ]
    assert data.input_shape == (7,)


def split_places(data):
    from normlab.data.common.splits import Splitter

    _, y = data.load()["train"]
    found = Splitter(data.val_fraction, data.test_fraction, 0, None, 0, data.class_names).split(y)
    return [found[part].numpy() for part in ("train", "val", "test")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_files_of_every_dialect_hold_the_same(written, delimiter, end, mark):
    frame = people()
    frame["job"] = frame["job"].map({"clerk": f"a clerk{delimiter} old", "cook": 'b "cook"', "pilot": "c\npilot"})
    content = mark + frame.to_csv(index=False, sep=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    found, expected = data_of(written(content)), data_of(written(people(), "plain.csv"))
    assert all(torch.equal(a, b) for a, b in zip(everything(found), everything(expected), strict=True))


def test_a_comma_within_numbers(written):
    frame = people()
    expected = data_of(written(frame))
    found = data_of(written(frame, "comma.csv", sep=";", decimal=","), decimal=",")
    assert torch.equal(everything(found)[0], everything(expected)[0])
    thousands = written(table({"z": ["1.234,5"] * 20 + ["2,5"] * 20}).to_csv(index=False, sep=";"), "thousands.csv")
    assert "column z has to hold numbers, but '1.234,5'" in refusal(thousands, decimal=",", numeric=["z"], drop=["x"])


def test_without_a_header_columns_are_numbered(written):
    data = data_of(written(people(), header=False), "c3", header=False)
    assert torch.equal(everything(data)[0], everything(data_of(written(people())))[0])
    assert "data.header=false" in refusal(written("1,2,x\n3,4,y\n"), "answer")


def test_three_files(written):
    frame = people(90)
    paths = [written(part, f"{n}.csv") for n, part in enumerate((frame[:60], frame[60:75], frame[75:]))]
    data = data_of(paths[0], val_path=str(paths[1]), test_path=str(paths[2]))
    assert [len(y) for _, y in data.splits.values()] == [60, 15, 15]
    two = data_of(paths[0], test_path=str(paths[2]))
    assert {part: len(y) for part, (_, y) in two.splits.items()} == {"train": 51, "val": 9, "test": 15}
    assert torch.equal(data.splits["test"][1], two.splits["test"][1])


def test_named_columns_and_missing_texts(written):
    frame = table({"code": ["01", "1", "2", "?"] * 10, "size": ["3", "4", "?", "5"] * 10, "note": ["a", "b"] * 20})
    data = data_of(written(frame), categorical=["code"], drop=["note"], missing=["?"])
    assert data.preprocessing.feature_names == ["x", "size", "size missing", "code=", "code=01", "code=1", "code=2"]


def test_what_teaches_nothing_is_left_out_and_told(written, caplog):
    columns = {"name": [f"person {n}" for n in range(40)], "void": [""] * 40, "same": [3] * 40, "word": ["a"] * 40}
    with caplog.at_level(logging.INFO, "normlab"):
        data = data_of(written(table(columns).rename(columns={"x": ""}).assign(x=np.arange(40) % 7)))
    assert data.preprocessing.feature_names == ["x"]
    assert "left out: name (text of which most rows have their own)" in caplog.text
    assert "left out: void (no values)" in caplog.text
    assert "left out: same, word (a single value in the training part)" in caplog.text
    assert "1 of 7 columns left out (no name)" in caplog.text
    assert "40 rows, 2 numeric, 1 categorical columns; classify answer (text): no 20, yes 20" in caplog.text


@pytest.mark.parametrize(
    ("values", "task", "names"),
    [
        (["b", "a", "c", "a"], "classify", ("a", "b", "c")),
        (["10", "9", "10.0", "9"], "classify", ("9", "10")),
        (["0.5", "1.5", "0.5", "1.5"], "classify", ("0.5", "1.5")),
        (["1", "2", "3", "4"], "classify", ("1", "2", "3", "4")),
        (["1.5", "2", "3", "4"], "regress", ()),
        ([str(n) for n in range(40)], "regress", ()),
        (["True", "False", "True", "False"], "classify", ("False", "True")),
        (["None", "NA", "apnea", "NA"], "classify", ("NA", "None", "apnea")),
    ],
)
def test_what_the_target_is(written, values, task, names):
    data = data_of(written(table({"answer": (values * 40)[:40]})))
    assert (data.task, data.class_names, data.out_features) == (task, names, len(names) or 1)


def test_the_task_by_key(written):
    path = written(table({"answer": [1, 2, 3, 4] * 10}))
    data = data_of(path, task="regress")
    assert data.splits["train"][1].dtype == torch.float32
    assert data_of(path, task="classify").class_names == ("1", "2", "3", "4")


def test_unknown_and_missing_categories_at_test_time(written):
    known, new = table({"kind": ["a", "b"] * 20}), table({"kind": ["c", "a", "", "b"]}, 4)
    paths = {"path": written(known), "test_path": str(written(new, "new.csv"))}
    onehot = data_of(paths["path"], test_path=paths["test_path"]).splits["test"][0]
    assert onehot[:, 1:].tolist() == [[0, 0], [1, 0], [0, 0], [0, 1]]
    embed = data_of(paths["path"], test_path=paths["test_path"], categories="embed").splits["test"][0]
    assert embed[:, 1].tolist() == [0, 1, 0, 2]


def test_parquet_reads_what_csv_reads(written, tmp_path):
    frame = people().assign(member=[True, False] * 30, count=pd.array([1, None] * 30, "Int64"))
    frame["age"] = frame["age"].astype(int)
    frame["job"] = frame["job"].astype("category")
    frame.to_parquet(tmp_path / "people.parquet")
    found = data_of(tmp_path / "people.parquet", kind=Parquet, categorical=["count"])
    expected = data_of(written(frame), categorical=["count"])
    assert found.preprocessing == expected.preprocessing
    assert all(torch.equal(a, b) for a, b in zip(everything(found), everything(expected), strict=True))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pd.date_range("2024-01-01", periods=40), "column c holds values of type datetime64"),
        ([[1, 2]] * 40, "column c holds values of type mixed"),
        ([b"a"] * 40, "column c holds values of type bytes"),
    ],
)
def test_parquet_of_other_types(tmp_path, column, message):
    table({"c": column}).to_parquet(tmp_path / "t.parquet")
    assert message in refusal(tmp_path / "t.parquet", kind=Parquet)
    assert data_of(tmp_path / "t.parquet", kind=Parquet, drop=["c"]).input_shape == (1,)


def test_a_parquet_file_that_is_none(written):
    assert "table.parquet: " in refusal(written("a,b\n1,2\n", "table.parquet"), kind=Parquet)


def test_openml(example, monkeypatch):
    example("openml")
    data = OpenML(name="iris")
    data.setup()
    assert (data.targets, data.class_names, data.input_shape) == (["target"], ("0", "1", "2"), (6,))
    with pytest.raises(ConfigError, match="data.name= or data.id="):
        OpenML()

    def offline(**keys):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(openml, "fetch_openml", offline)
    with pytest.raises(ConfigError, match="data.id=61: openml.org gave no table: .*no network"):
        OpenML(id=61).setup()


# embeddings and the run folder


def test_embeddings_look_up_each_column():
    encoder = Embeddings(2, [3, 40])
    x = torch.tensor([[0.5, -1, 3, 40], [0.1, 2, 0, 7]])
    found = encoder(x)
    first, second = (table.weight for table in encoder.tables)
    assert (first.shape, second.shape) == ((4, 3), (41, 13))  # 1.6·3^0.56 = 2.96, 1.6·40^0.56 = 12.6
    assert torch.equal(
        found, torch.stack([torch.cat([x[0, :2], first[3], second[40]]), torch.cat([x[1, :2], first[0], second[7]])])
    )
    assert not first[0].any()
    assert encoder.out_features == found.shape[1] == 18


def test_embeddings_train_with_the_network_and_come_back(written, quick_run, tmp_path):
    path = written(people(200))
    keys = ["model=net", "data=csv", f"data.path={path}", "data.target=answer", "data.categories=embed"]
    first = quick_run(*keys, "trainer.max_epochs=2", "trainer.limit_train_batches=1.0", "data.subset=90")
    tested = quick_run(*keys, "action=test", f"ckpt={tmp_path}/run/checkpoints/best.ckpt", folder="test")
    weights, restored = first.task.state_dict(), tested.task.state_dict()
    assert "network.encoder.tables.0.weight" in weights
    assert all(torch.equal(weights[key], restored[key]) for key in weights)
    torch.manual_seed(0)
    started = build(compose([*keys, "logger=none"]), tmp_path / "new").task.network.encoder.tables[0].weight
    assert not torch.equal(weights["network.encoder.tables.0.weight"][1:], started[1:])


def test_embeddings_refuse_a_precision_that_rounds_categories(written, quick_run):
    keys = [f"data.path={written(people())}", "data.target=answer", "data.categories=embed"]
    with pytest.raises(ConfigError, match="bf16-true rounds categories"):
        quick_run("model=net", "data=csv", "trainer.precision=bf16-true", *keys)


@pytest.mark.parametrize("categories", ["onehot", "embed"])
def test_a_new_file_needs_the_run_folder_alone(written, tmp_path, categories, caplog):
    frame = people()
    trained = data_of(written(frame), categories=categories)
    trained.save(tmp_path)
    places = split_places(trained)[2]
    new = frame.iloc[places][["job", "income", "age"]].assign(extra=1)
    (tmp_path / "table.csv").unlink()
    restored = Csv("gone.csv", "answer", categories=categories)
    restored.restore(tmp_path)
    with caplog.at_level(logging.INFO, "normlab"):
        x, names = new_samples(restored, written(new, "new.csv"))
    torch.testing.assert_close(x, trained.splits["test"][0], rtol=0, atol=0)
    assert names == [str(n + 1) for n in range(len(places))]
    assert "columns left out: extra (not in the training file)" in caplog.text
    assert (restored.task, restored.class_names, restored.input_shape) == (
        "classify",
        ("no", "yes"),
        trained.input_shape,
    )
    assert (restored.encoder() is None) == (categories == "onehot")
    for changed, message in [
        (new.drop(columns=["age", "job"]), "input=.*new.csv: these columns are missing: age, job"),
        (
            new.assign(age="old"),
            r"age has to hold numbers, but 'old' stands in row 1 and 11 more \(2, 3, 4, 5, 6, …\): mend it, or",
        ),
    ]:
        with pytest.raises(ConfigError, match=message):
            new_samples(restored, written(changed, "new.csv"))


def test_categories_new_to_the_run_are_told(written, tmp_path, caplog):
    trained = data_of(written(people()))
    with caplog.at_level(logging.WARNING, "normlab"):
        new_samples(trained, written(people(), "same.csv"))
        assert "is new to the run" not in caplog.text
        new_samples(trained, written(people().replace({"job": {"cook": "cook "}}), "new.csv"))
    count = (people()["job"] == "cook").sum()
    assert f"job in {count} of 60 rows is new to the run: 'cook '" in caplog.text


@pytest.mark.parametrize("test_file", [False, True])
def test_samples_are_called_by_their_rows(written, test_file):
    frame = people()
    other = {"test_path": str(written(frame[:20], "test.csv"))} if test_file else {}
    data = data_of(written(frame), **other)
    for part, (x, _) in data.splits.items():
        source = frame[:20] if test_file and part == "test" else frame
        rows = source.iloc[[int(name) - 1 for name in data.sample_names[part]]]
        assert len(rows) == len(x)
        age = torch.tensor(rows["age"].astype(float).to_numpy(), dtype=torch.float32)
        column = x[:, data.preprocessing.feature_names.index("age")]
        torch.testing.assert_close(
            column, (age - data.preprocessing.numbers[0].mean) / data.preprocessing.numbers[0].std
        )


def test_a_new_file_without_a_header_may_lack_the_target(written, tmp_path):
    frame = people()[["answer", "age", "income", "job"]]
    trained = data_of(written(frame, header=False), "c0", header=False)
    trained.save(tmp_path)
    trained.restore(tmp_path)
    without = written(frame.drop(columns="answer"), "new.csv", header=False)
    whole = new_samples(trained, written(frame, "all.csv", header=False))[0]
    assert torch.equal(new_samples(trained, without)[0], whole)
    with pytest.raises(ConfigError, match="2 columns; without a header, expected the 4 of the training file, or 3"):
        new_samples(trained, written(frame[["age", "job"]], "new.csv", header=False))


# bad input

FEW = table({"kind": ["a", "b"] * 20})


def with_cell(column: str, row: int, value, frame: pd.DataFrame = FEW) -> pd.DataFrame:
    changed = frame.astype({column: object})
    changed.loc[row, column] = value
    return changed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("\n\n\n", "the file has blank lines only"),
        ("a,answer\n", "there is a header and no row below it"),
        ("a\n1\n2\n", "the first line is a single column; it has none of a comma, a semicolon, a tab, a bar"),
        ("a,b,a,answer\n1,2,3,x\n", "columns with the same name: 'a'"),
        ("a,answer\n1,x\n2,y,3\n4,y\n", "line 3 has another number of columns (3) than the first (2)"),
        ("a,answer\n1,x\n2\n4,y\n", "line 3 has another number of columns (1) than the first (2)"),
        (b"a,answer\n1,x\n\xe9,y\n", r"line 3 is not in UTF-8 (byte 0xe9): save the file as UTF-8"),
        (b"a,answer\n1,\0x\n", "line 2 has a zero byte"),
        ("a,answer\n1,x\n".encode("utf-16"), "this is text in UTF-16; expected a text file in UTF-8"),
        (b"PK\x03\x04 xlsx", "this is a zip archive or an Excel file"),
        (b"\x1f\x8b gzip", "this is compressed"),
        (b"PAR1 parquet", "this is a parquet file: choose data=parquet"),
        ('a,answer\n1,"x\n' + 200_000 * "2", "field larger than field limit (131072); is a quote left open?"),
        ('a,answer\n1,"x\n2,y\n', "EOF inside string"),
        (table({}).rename(columns={"answer": "anser"}), "has no column answer; did you mean anser?"),
        (table({"answer": ["yes"] * 40}), "the target column answer has a single value, 'yes'"),
        (with_cell("answer", 7, "maybe"), "classes with fewer than two samples to split: maybe (1)"),
        (with_cell("answer", 7, ""), "the target column answer is empty in 1 of 40 rows, first in row 8"),
        (
            table({"answer": np.arange(40) / 3}).pipe(lambda f: with_cell("answer", 4, "inf", f)),
            "answer has 'inf' in row 5",
        ),
        (table({"answer": np.arange(40) / 3}).pipe(lambda f: with_cell("answer", 4, "1e16", f)), "within ±1.0e+15"),
        (
            with_cell("answer", 7, "?", table({"answer": [0, 1] * 20})),
            "answer holds numbers, but '?' in row 8: mend it",
        ),
        (table({"answer": [f"a{n}" for n in range(40)]}), "has 40 different values in 40 rows, which makes no classes"),
        (with_cell("x", 2, "-inf"), "column x has '-inf' in row 3; expected numbers within ±3.4e+38"),
        (with_cell("x", 2, "9" * 60), "column x has '9999999999999999999999999999999999999999…' in row 3"),
        (
            with_cell("x", 2, "n.a."),
            "column x holds numbers, but 'n.a.' in row 3: mend it, or set data.missing=['n.a.']",
        ),
        (table({"day": ["2024-01-31", "2024-02-01"] * 20}), "column day holds dates, such as '2024-01-31'"),
        (table({"day": ["31.1.24 12:00", "1/2/2024"] * 20}), "column day holds dates"),
        (table({"x": [f"text {n}" for n in range(40)]}), "no column is left to learn from"),
        (
            table({"pay": [f"1.{n:03},5" for n in range(40)]}),
            "column pay holds numbers that are written in another way",
        ),
        (
            table({"pay": [f"{n},5" for n in range(40)]}),
            "such as '0,5': write them with one point and nothing else, set",
        ),
        (with_cell("answer", 7, "yes "), "the classes 'yes' and 'yes ' of answer differ by spaces only"),
        (table({"x": [1] * 40}), "no column is left to learn from"),
    ],
)
def test_bad_files(written, content, message):
    said = refusal(written(content))
    assert message in said
    assert "table.csv" in said or "classes with" in said


def test_bad_keys(written):
    path = written(FEW)
    assert "with data.delimiter=';' the first line is a single column; ',' gives more" in refusal(path, delimiter=";")
    assert "expected a single character" in refusal(path, delimiter="::")
    assert "data.drop: " in refusal(path, drop=["knd"])
    assert "no column knd; did you mean kind?" in refusal(path, drop=["knd"])
    assert "column x stands in data.numeric and in data.drop" in refusal(path, numeric=["x"], drop=["x"])
    assert "column answer stands in data.target and in data.drop" in refusal(path, drop=["answer"])
    assert "column kind has to hold numbers, but 'a' stands in row 1" in refusal(path, numeric=["kind"])
    assert (
        "column answer has to hold numbers, but 'no' stands in row 1 and 39 more (2, 3, 4, 5, 6, …): mend it"
        in refusal(path, task="regress")
    )
    many = written(table({"kind": [f"k{n // 3}" for n in range(4000)]}, 4000), "many.csv")
    assert "categories; set data.categories=embed" in refusal(many, split_seed=1)
    assert data_of(many, categories="embed").input_shape == (2,)


def test_other_files_that_do_not_fit(written):
    path = written(FEW)
    for frame, message in [
        (FEW.drop(columns="kind"), "data.test_path=.*: these columns are missing: kind"),
        (FEW.drop(columns="answer"), "data.test_path=.*: the target column answer is missing"),
        (with_cell("answer", 3, "maybe"), "class 'maybe' of answer in row 4 is not in the training file"),
        (with_cell("x", 3, "much"), "data.test_path=.*: column x has to hold numbers, but 'much' stands in row 4"),
    ]:
        keys = {"test_path": str(written(frame, "test.csv"))}
        with pytest.raises(ConfigError, match=message):
            data_of(path, **keys)
    near = written(table({"x": np.arange(40) * 1e-30}), "near.csv")
    with pytest.raises(ConfigError, match="column x has 1e\\+38, far off all of the training part"):
        data_of(near, test_path=str(written(with_cell("x", 3, "1e38"), "test.csv")))


def test_a_regression_target_with_one_value_in_the_training_part(written):
    data = data_of(written(table({"answer": [1.5] * 39 + [2]})), task="regress", split_seed=0)
    data.splits["train"] = data.splits["train"][0], torch.ones(26, 1)
    with pytest.raises(ConfigError, match="the target has a single value in the training part"):
        data.target_statistics()


def test_a_part_to_regress_needs_two_samples(written):
    assert "the val part has a single sample, and r2 needs two" in refusal(written(table({}, 6)), "x")


def test_a_line_without_end_is_not_read_to_its_end(written, monkeypatch):
    path = written("a,answer\n" + "1" * 1000)
    monkeypatch.setattr(text, "LONGEST_LINE", 100)
    assert "line 2 has more than 100 characters; this is no table" in refusal(path)


def test_a_sparse_file_of_two_gigabytes_is_refused_at_once(tmp_path):
    path = tmp_path / "huge.csv"
    with path.open("wb") as file:
        file.write(b"1" * 2**25)
        file.truncate(2**31)
    assert "line 1 has more than 16,777,216 characters" in refusal(path)


def test_places_that_are_no_files(tmp_path, monkeypatch, written):
    assert "No such file" in refusal(tmp_path / "none.csv")
    assert "this is a folder, not a file" in refusal(tmp_path)
    (tmp_path / "a.csv").symlink_to(tmp_path / "b.csv")
    (tmp_path / "b.csv").symlink_to(tmp_path / "a.csv")
    assert "symbolic links" in refusal(tmp_path / "a.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    assert "no regular file" in refusal(tmp_path / "pipe.csv")
    path = written(FEW)

    def locked(self, *args, **keys):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", locked)
    assert "Permission denied" in refusal(path)


def test_refused_from_the_command_line_before_torch_and_before_a_folder(written, tmp_path):
    path = written(FEW)
    for keys, message in [
        (["data.target=answer"], "data.path= is needed: the file to read"),
        ([f"data.path={path}"], "data.target= is needed: the column to learn"),
        ([f"data.path={path}", "data.target=anser"], "has no column anser; did you mean answer?"),
        (["data.path=none.csv", "data.target=answer"], "data.path=none.csv: No such file"),
        ([f"data.path={path}", "data.target=answer", "data.test_path=x"], "data.test_path=x: No such file"),
    ]:
        with pytest.raises(ConfigError) as error:
            compose(["model=net", "data=csv", *keys])
        assert message in str(error.value)
    done = train("model=net", "data=csv", f"data.path={path}", "data.target=anser", cwd=tmp_path, check=2)
    assert done.stderr.startswith("refused: data.target: ")
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.slow
def test_a_table_from_the_command_line(written, tmp_path):
    path = written(people(200))
    keys = ["model=net", "data=csv", f"data.path={path}", "data.target=answer", "trainer.max_epochs=2", "name=people"]
    done = train(*keys, "task.class_weights=balanced", "logger=none", cwd=tmp_path)
    assert "200 rows, 2 numeric, 1 categorical columns; classify answer (text): " in done.stdout
    assert "test/acc" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif("NORMLAB_DATA_DIR" not in os.environ, reason="NORMLAB_DATA_DIR is not set")
def test_the_bank_experiment_reaches_what_its_header_says(tmp_path):
    metrics = run(compose(["experiment=bank", "logger=none"]), folder=tmp_path).metrics
    assert metrics["test/acc"] > 0.9
    assert metrics["test/auroc"] > 0.92
