"""Columns of codes with leading zeros are names, and columns that count rows are pointed out."""

import logging

import numpy as np
import pandas as pd
import pytest
import torch

from normlab.data.csv import Csv


def read(path, frame, **keys):
    frame.to_csv(path, index=False)
    data = Csv(str(path), "answer", **keys)
    data.setup()
    return data


def table(rows=80, **columns):
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {**columns, "x": random.normal(size=rows).round(3), "answer": random.choice(["no", "yes"], rows)}
    )


@pytest.mark.parametrize("seed", range(4))
def test_codes_with_a_leading_zero_are_categories_whatever_their_width(tmp_path, seed):
    random = np.random.default_rng(seed)
    width = int(random.integers(2, 8))
    codes = np.array([f"{number:0{width}}" for number in random.choice(10**width // 5, 6, replace=False)])
    codes[0] = "0" + codes[0][1:]
    data = read(tmp_path / "t.csv", table(code=np.resize(codes, 80)))
    found = {column.name: column.values for column in data.preprocessing.categories}
    assert set(found["code"]) == set(codes)
    numeric = read(tmp_path / "n.csv", table(code=np.resize(codes, 80)), numeric=["code"])
    assert "code" in [number.name for number in numeric.preprocessing.numbers]


@pytest.mark.parametrize("values", [["0", "1", "10"], ["0.5", "0.25", "00.1"], ["-01", "2", "3"], ["1067", "2", "30"]])
def test_other_numbers_stay_numbers(tmp_path, values):
    data = read(tmp_path / "t.csv", table(code=np.resize(values, 80)))
    assert "code" in [number.name for number in data.preprocessing.numbers]


def test_classes_keep_their_leading_zeros_in_every_file(tmp_path):
    frame = table(60)
    frame["answer"] = np.resize(["01", "02", "10"], 60)
    other = frame[frame["answer"] == "10"].assign(answer="10")
    other = pd.concat([other, frame[:1]])
    other.to_csv(tmp_path / "test.csv", index=False)
    data = read(tmp_path / "t.csv", frame, test_path=str(tmp_path / "test.csv"))
    assert data.class_names == ("01", "02", "10")
    assert sorted(set(data.splits["test"][1].tolist())) == [0, 2]


@pytest.mark.parametrize("start", [0, 1, 1000])
def test_a_row_counter_is_pointed_out_and_an_id_that_is_wanted_is_not(tmp_path, caplog, start):
    caplog.set_level(logging.INFO, "normlab")
    counted = table(row=np.random.default_rng(1).permutation(80) + start)
    assert torch.isfinite(read(tmp_path / "t.csv", counted).splits["train"][0]).all()
    assert "row has a whole number of its own in each row" in caplog.text
    assert "data.drop=[row]" in caplog.text
    for keys in ({"drop": ["row"]}, {"numeric": ["row"]}):
        caplog.clear()
        read(tmp_path / "t.csv", counted, **keys)
        assert "of its own" not in caplog.text
