"""Generated table files: each gives a trained batch, or one clear message, and never an error from inside a library."""

import csv
import io
import itertools

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings

from normlab import compose, run
from normlab.data.csv import Csv
from normlab.errors import ConfigError

SETTINGS = {"derandomize": True, "deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}

NUMBERS = st.one_of(
    st.integers(-9, 99).map(str),
    st.integers().map(str),
    st.floats(-1e3, 1e3).map(repr),
    st.floats().map(repr),
)
WORDS = st.sampled_from(
    ["a", "b", "", "NA", "?", "01", "1,5", "1.5", "yes", "2024-01-31", "é ü", "x;y", 'say "no"', "a\nb"]
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@st.composite
def columns(draw, rows: int) -> list[str]:
    """Cells of one column: of a few values, of numbers, of anything, or one kind with a mistake in it."""
    kind = draw(st.sampled_from(["few", "numbers", "small", "anything", "mistake", "same", "count"]))
    if kind == "count":
        return [str(n) for n in range(rows)]
    if kind == "same":
        return [draw(WORDS)] * rows
    cell = {
        "few": st.sampled_from(draw(st.lists(st.one_of(WORDS, NUMBERS, TEXTS), min_size=1, max_size=3))),
        "numbers": NUMBERS,
        "small": st.integers(0, 3).map(str),
        "anything": st.one_of(WORDS, NUMBERS, TEXTS),
        "mistake": st.floats(-5, 5).map(repr),
    }[kind]
    cells = draw(st.lists(cell, min_size=rows, max_size=rows))
    if kind == "mistake" and rows:
        cells[draw(st.integers(0, rows - 1))] = draw(st.one_of(WORDS, TEXTS))
    return cells


@st.composite
def files(draw, least: int = 0) -> tuple[bytes, dict]:
    """The bytes of a file of at least so many rows, and the keys that it is read with."""
    rows = draw(st.one_of(st.integers(least, 40), st.integers(20, 40)))
    width = draw(st.sampled_from([0, 1, 2, 3, 3, 4, 4, 5]))
    target = draw(st.sampled_from([["0", "1"], ["no", "yes", "maybe"], ["0.5", "-1", "2", "7.5"], None]))
    inputs = [draw(columns(rows)) for _ in range(width)]
    answers = draw(columns(rows)) if target is None else [target[n % len(target)] for n in range(rows)]
    odd = st.lists(st.one_of(st.sampled_from("abcde"), TEXTS), min_size=width, max_size=width)
    names = draw(st.sampled_from([["a", "b", "c", "d", "e"][:width]] * 4 + [None])) or draw(odd)
    buffer = io.StringIO()
    delimiter = draw(st.sampled_from([",", ";", "\t", "|"]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator=end)
    writer.writerows([[*names, "y"], *zip(*inputs, answers, strict=True)])
    content = bytearray(buffer.getvalue().encode())
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):  # damage
        place = draw(st.integers(0, len(content)))
        content[place : place + draw(st.integers(0, 3))] = draw(
            st.one_of(st.binary(max_size=3), st.sampled_from([b'"', b"\n", b"\r", b",", b" ", b"9"]))
        )
    keys = {
        "header": draw(st.sampled_from([True] * 6 + [False])),
        "categories": draw(st.sampled_from(["onehot", "embed"])),
        "task": draw(st.sampled_from([None, None, None, "classify", "regress"])),
        "decimal": draw(st.sampled_from([".", ".", ".", ","])),
    }
    return bytes(content), keys


def target(keys: dict, content: bytes) -> str:
    first = content.split(b"\n")[0]
    return "y" if keys["header"] else f"c{max(map(first.count, (b',', b';', b'|')))}"


@pytest.mark.endurance
def test_two_thousand_files_are_read_or_refused(tmp_path):
    read = []

    @settings(max_examples=2000, **SETTINGS)
    @given(files())
    def check(example):
        content, keys = example
        path = tmp_path / "t.csv"
        path.write_bytes(content)
        data = Csv(str(path), target(keys, content), **keys)
        try:
            data.setup()
            data.encoder()
            if data.task == "regress":
                assert all(torch.isfinite(value).all() for value in data.target_statistics())
        except ConfigError:
            return
        read.append(1)
        for x, y in data.splits.values():
            assert tuple(x.shape) == (len(y), *data.input_shape)
            assert x.dtype == torch.float32
            assert torch.isfinite(x).all()
            assert torch.isfinite(y).all()
            if data.task == "classify":
                assert 0 <= int(y.min()) <= int(y.max()) < data.out_features == len(data.class_names)

    check()
    assert len(read) > 200  # otherwise the files are too bad to say anything


@pytest.mark.slow
def test_fifty_files_train_or_are_refused(tmp_path):
    trained, numbers = [], itertools.count()

    @settings(max_examples=50, phases=[Phase.generate], **SETTINGS)  # making a smaller failing one takes minutes
    @given(files(least=20))
    def check(example):
        content, keys = example
        path = tmp_path / "t.csv"
        path.write_bytes(content)
        typed = [f"data.{key}={'null' if value is None else repr(value).lower()}" for key, value in keys.items()]
        overrides = ["model=net", "data=csv", f"data.path={path}", f"data.target={target(keys, content)}", *typed]
        try:
            config = compose([*overrides, "trainer=debug", "logger=none", "data.batch_size=8"])
            run(config, folder=tmp_path / str(next(numbers)))
        except ConfigError:
            return
        trained.append(1)

    check()
    assert len(trained) > 2  # otherwise the files are too bad to say anything
