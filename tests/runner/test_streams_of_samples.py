"""Files larger than memory: read and written in portions, with the bytes that one portion gives."""

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.samples import image_folder
from test_score import people

from normlab import compose, run
from normlab.data.common.batches import Batches
from normlab.data.common.portions import Portion
from normlab.data.images import base as images
from normlab.data.tables import frames
from normlab.data.tables.arrow import parquet_portions, read_parquet
from normlab.errors import ConfigError
from normlab.runner import answers
from normlab.runner.inputs import NewBatches
from normlab.runner.spreadsheet import escaped

SMALL = ["model=net", "logger=none", "trainer.max_epochs=1", "name=a", "data.batch_size=16"]
WRITTEN = Path("outputs/a/predict/predictions.csv")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fitted():
    people(90).to_csv("train.csv", index=False)
    drop = "data.drop=[owns,rents,price]"
    run(compose([*SMALL, "data=csv", "data.path=train.csv", "data.target=kind", "data.keep=[rent]", drop]))


def predicted(file: str, *typed: str) -> bytes:
    run(compose(["action=predict", "name=a", f"input={file}", *typed]))
    return WRITTEN.read_bytes()


@pytest.mark.parametrize("samples", [1, 15, 16, 17, 50])
@pytest.mark.parametrize("size", [1, 7, 16, 33])
def test_batches_are_those_of_all_samples_together(samples, size):
    """Portions of random lengths, empty ones among them."""
    x = torch.arange(samples * 3.0).reshape(samples, 3)
    cuts = np.random.default_rng([samples, size]).integers(0, samples + 1, 4).tolist()
    ends = sorted([0, *cuts, samples])
    parts = [(x[start:stop], range(start, stop)) for start, stop in pairwise(ends)]
    loader = NewBatches(
        lambda: (Portion(part, [*map(str, places)], torch.tensor([*places])) for part, places in parts),
        size,
        lambda samples: samples * 2,
        lambda samples: None,
        "X",
    )
    found = [*loader]
    expected = [*Batches(2 * x, torch.arange(samples), size)]
    assert [len(batch) for batch, _ in found] == [len(batch) for batch, _ in expected]
    for (batch, places), (whole, numbers) in zip(found, expected, strict=True):
        assert torch.equal(batch, whole)
        assert torch.equal(places, numbers)
    assert loader.called.take(samples)[0] == [str(number) for number in range(samples)]
    assert loader.samples == samples


@pytest.mark.parametrize("kind", [pytest.param("csv", marks=pytest.mark.slow), "parquet"])
def test_a_file_in_portions_gives_the_bytes_of_a_file_at_once(fitted, kind, monkeypatch, capsys):
    new = people(200, seed=1)
    new.loc[[3, 150, 199], "job"] = ["new", "newer", "new"]
    new["note"] = [f'{row}, "quoted"\nand more' for row in range(200)]
    new.to_csv("new.csv", index=False) if kind == "csv" else new.to_parquet("new.parquet", row_group_size=70)
    whole = predicted(f"new.{kind}")
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("input=")]
    assert f"input=new.{kind}: job in 3 of 200 rows is new to the run: 'new', 'newer'" in told
    monkeypatch.setattr(frames, "CELLS", 130)
    monkeypatch.setattr(answers, "ROWS", 40)
    lengths = []
    take = frames.NewRows.portion
    monkeypatch.setattr(frames.NewRows, "portion", lambda rows, frame: lengths.append(len(frame)) or take(rows, frame))
    assert predicted(f"new.{kind}") == whole
    assert max(lengths) <= 18
    assert sum(lengths) == 200
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("input=")] == told
    assert pd.read_csv(io.BytesIO(whole))["rent"].tolist() == new["rent"].tolist()


def test_images_in_portions_give_the_bytes_of_all_at_once(monkeypatch):
    photos = image_folder(Path("photos"), images=12)
    run(compose([*SMALL, "data=image_folder", f"data.path={photos}", "data.corrupt=skip"]))
    (photos / "a" / "000.png").write_text("no image")
    whole = predicted("photos")
    monkeypatch.setattr(images, "PORTION", 1)  # a batch at a time
    assert predicted("photos") == whole
    assert whole.count(b"\n") == 1 + 23


def test_a_refusal_in_a_later_portion_names_its_row_and_leaves_the_earlier_table(fitted, monkeypatch):
    monkeypatch.setattr(frames, "CELLS", 130)
    people(60, seed=1).to_csv("new.csv", index=False)
    before = predicted("new.csv")
    wrong = people(60, seed=1).astype({"age": object})
    wrong.loc[45, "age"] = "old"
    wrong.to_csv("wrong.csv", index=False)
    with pytest.raises(ConfigError, match="wrong.csv: column age has to hold numbers, but 'old' stands in row 46:"):
        predicted("wrong.csv")
    assert WRITTEN.read_bytes() == before
    assert not list(WRITTEN.parent.glob(".*.part"))


@pytest.mark.parametrize("end", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_predict_leaves_no_half_table(fitted, end, monkeypatch):
    people(60, seed=1).to_csv("new.csv", index=False)
    monkeypatch.setattr(answers, "ROWS", 16)
    flush = answers.Answers.flush

    def interrupted(self):
        if self.rows >= 32:
            raise end
        flush(self)

    monkeypatch.setattr(answers.Answers, "flush", interrupted)
    with pytest.raises(end):
        predicted("new.csv")
    assert not WRITTEN.exists()
    assert not list(WRITTEN.parent.glob(".*.part"))


def random_table(seed: int) -> pd.DataFrame:
    """Columns of every plain type, with gaps in some; also a named index, which pandas writes too."""
    random = np.random.default_rng(seed)
    rows = int(random.integers(1, 40))
    types = ["Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64", "int64"]
    columns = {name.lower() + "_": pd.array(random.integers(0, 100, rows), dtype=name) for name in types}
    columns |= {"flag": pd.array(random.random(rows) < 0.5, dtype="boolean"), "plain": random.normal(size=rows)}
    columns |= {"text": random.choice(["a", "", "é", "NA"], rows).astype(object)}
    frame = pd.DataFrame(columns).assign(kind=lambda frame: pd.Categorical(frame["text"]))
    for name in frame.columns[random.random(frame.shape[1]) < 0.5]:
        if frame[name].dtype != "int64":
            frame.loc[random.random(rows) < 0.3, name] = None
    return frame.rename_axis("row") if seed % 2 else frame


@pytest.mark.parametrize("seed", range(6))
def test_portions_of_parquet_are_the_table_that_pandas_reads(seed):
    frame = random_table(seed)
    frame.to_parquet("a.parquet", row_group_size=11)
    whole = read_parquet(Path("a.parquet"), "x")
    portions = [*parquet_portions(Path("a.parquet"), "x", 7)]
    assert max(map(len, portions)) <= 7
    joined = pd.concat(portions)
    pd.testing.assert_frame_equal(joined.drop(columns="kind"), whole.drop(columns="kind"))
    assert joined["kind"].astype(object).equals(whole["kind"].astype(object))


@pytest.mark.parametrize("make", [lambda: b"PAR1 and no more", lambda: b"x,y\n1,2\n", lambda: b""])
def test_what_is_no_parquet_is_refused(make):
    Path("a.parquet").write_bytes(make())
    with pytest.raises(ConfigError, match="^x: "):
        list(parquet_portions(Path("a.parquet"), "x", 7))


RUN = ["=1+1", "+49 30 1", "-2+3", "@SUM(A1)", "\tx", "\rx", "=", "-", "=cmd|' /C calc'!A0", "-1e", "+1.2.3"]
LEFT = ["-1.5", "+3", "-1e-5", "-,5", "1", "", "x=1", " =1", "a-b", "-12,50", "é"]


def test_cells_that_a_spreadsheet_would_run_get_an_apostrophe_and_numbers_none():
    table = pd.DataFrame({"=name": RUN + LEFT, "n": np.linspace(-1, 1, len(RUN + LEFT), dtype=np.float32)})
    found = escaped(table)
    assert found["'=name"].tolist() == [f"'{text}" for text in RUN] + LEFT
    assert found["n"].dtype == "float32"
    assert found["n"].equals(table["n"])


def test_the_key_escapes_kept_columns_and_the_default_leaves_them(fitted):
    cells = [text for text in RUN if text.strip() == text]  # reading a csv takes blanks away
    new = people(len(cells) + 1, seed=1)
    new["rent"] = [*cells, "-7.5"]
    new.to_csv("new.csv", index=False)
    plain = predicted("new.csv")
    assert b"\n1,=1+1," in plain
    table = pd.read_csv(io.BytesIO(predicted("new.csv", "escape=true")), dtype=str, keep_default_na=False)
    assert table["rent"].tolist() == [*(f"'{text}" for text in cells), "-7.5"]
    probabilities = pd.read_csv(io.BytesIO(plain))["p_old"]
    assert table["p_old"].astype(float).tolist() == probabilities.tolist()
