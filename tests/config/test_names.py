"""The names of runs and files that a person types: they stay as they are, or are refused."""

import os
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from helpers.cases import QUICK, WINE
from helpers.processes import train
from helpers.samples import image_folder

from normlab import compose, run
from normlab.config.compose import check
from normlab.config.overrides import as_typed, parse
from normlab.errors import ConfigError
from normlab.folder import files, writing
from normlab.folder.place import check_place

NAMES = ["1_0", "2026_11_22", "1e3", "1E-3", "true", "False", "nan", "inf", "-1", "1.50", "00", "1_000.5", "+3"]


@pytest.mark.parametrize("key", ["name", "data.path"])
@pytest.mark.parametrize("name", NAMES)
def test_names_stay_text(key, name):
    """The shell and the file system take them for text; Hydra's grammar by itself makes numbers of them."""
    (line,) = as_typed([f"{key}={name}"])
    assert parse([line])[0].value() == name
    assert as_typed([line]) == [line]


@pytest.mark.parametrize("line", ["name=null", "name=a", "seed=1_0", "model=net", "optimizer.lr=1e-3", "-m", "--help"])
def test_nothing_else_is_put_in_quotes(line):
    assert as_typed([line]) == [line]


@pytest.mark.parametrize("name", ["1_0", *(pytest.param(name, marks=pytest.mark.slow) for name in ("true", "1e3"))])
def test_a_run_has_the_folder_and_the_configuration_of_its_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = compose([*WINE, *QUICK, f"name={name}"])
    assert config.name == name
    writing.write_config(tmp_path, config)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text().partition("hydra:")[0]) is not None
    assert files.read_config(tmp_path).name == name
    assert run(config).folder == Path("outputs", name)


@pytest.mark.slow
def test_a_name_of_digits_on_the_command_line_and_in_a_sweep(tmp_path):
    train(*WINE, *QUICK, "name=1_0", cwd=tmp_path)
    train("-m", *WINE, *QUICK, "seed=1,2", "name=1e3", cwd=tmp_path)
    assert sorted(entry.name for entry in (tmp_path / "outputs").iterdir()) == ["1_0", "1e3"]


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    return tmp_path / "outputs"


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check([*WINE, *QUICK, *overrides])
    return str(caught.value)


@pytest.mark.parametrize("name", ["x" * 300, "ä" * 128, f"a/{'x' * 256}/b"])
def test_a_name_that_is_too_long_is_refused(name, outputs):
    assert "is too long: a folder's name has at most 255 bytes" in refused(f"name='{name}'")
    with pytest.raises(ConfigError, match="is too long"):
        run(compose([*WINE, *QUICK]), folder=outputs / name)


@pytest.mark.parametrize("name", ["x" * 255, "ä" * 127])
def test_the_longest_name_is_taken(name, outputs):
    assert run(compose([*WINE, *QUICK, f"name='{name}'"])).folder.is_dir()


@pytest.mark.parametrize("name", ["a", "a/b", "a/b/c"])
def test_a_file_in_the_place_is_refused(name, outputs):
    (outputs / "a").touch()
    assert refused(f"name={name}") == f"outputs/{name} cannot be made: outputs/a is no folder; choose another name="
    with pytest.raises(ConfigError, match="outputs/a is no folder"):
        run(compose([*WINE, *QUICK]), folder=Path("outputs", name))


def test_a_file_in_the_place_of_all_runs_is_refused(outputs):
    outputs.rmdir()
    outputs.touch()
    assert "outputs is no folder" in refused()


@contextmanager
def as_nobody():
    """The rights of somebody who is not root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_folder_that_is_read_only_is_refused():
    with TemporaryDirectory() as place:
        Path(place).chmod(0o555)
        with as_nobody(), pytest.raises(ConfigError) as caught:
            check_place(Path(place, "a", "b"))
    assert str(caught.value) == f"{place}/a/b cannot be written: {place} is read-only; choose another name="


@pytest.mark.parametrize("action", ["test", "validate", "predict", "lr_find"])
@pytest.mark.parametrize("ckpt", ["nowhere.ckpt", "no/such/folder/best.ckpt"])
def test_a_checkpoint_that_is_not_there_is_named(action, ckpt, outputs):
    assert refused(f"action={action}", f"ckpt={ckpt}") == f"ckpt={ckpt}: there is no file {ckpt}"
    assert list(outputs.iterdir()) == []


def test_a_file_name_that_is_no_utf8_loses_no_prediction(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = image_folder(tmp_path / "images", images=20)
    made = ["model=custom_model", "data=image_folder", f"data.path={images}", "logger=none", "trainer=debug", "name=a"]
    run(compose([*made, "data.batch_size=8"]))
    strange = os.fsdecode(b"caf\xe9.png")
    new = image_folder(tmp_path / "new", classes="a", images=2) / "a"
    try:
        (new / "000.png").rename(new / strange)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    result = run(compose(["action=predict", "name=a", f"input={new}"]))
    assert result.predictions is not None
    assert sorted(result.predictions["sample"]) == ["001.png", "caf\\udce9.png"]
    written = (tmp_path / "outputs" / "a" / "predict" / "predictions.csv").read_text(encoding="utf-8")
    assert len(written.splitlines()) == 3
    assert "caf\\udce9.png" in written
