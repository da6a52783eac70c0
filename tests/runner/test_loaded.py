"""normlab.load: a finished run, asked from Python, answers as action=predict does, in scikit-learn's ways."""

# ruff: noqa: N806  # X is what scikit-learn calls it

import os
import pickle
import random
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.datasets
import torch
from helpers.samples import image_folder
from PIL import Image
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, r2_score
from sklearn.pipeline import Pipeline
from sklearn.utils import estimator_checks
from sklearn.utils.validation import check_is_fitted
from test_score import people

from normlab import ConfigError, compose, load, run

SMALL = ["model=net", "logger=none", "trainer.max_epochs=1", "trainer.accelerator=cpu"]
DROPPED = {
    "kind": "owns,rents,price,rent",
    "price": "kind,owns,rents,rent",
    "[price,rent]": "kind,owns,rents",
    "[owns,rents]": "kind,price,rent",
}


@dataclass
class Made:
    """Runs, each fitted when it is first asked for, and the folder with their files."""

    fit: Callable[..., Path]
    place: Path

    def __call__(self, *typed: str) -> Path:
        return self.fit(*typed)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Fits a run of people, or of another data set, once; gives its folder."""
    place = tmp_path_factory.mktemp("loaded")
    people(90).to_csv(place / "train.csv", index=False)
    people(70, seed=1).to_csv(place / "new.csv", index=False)
    people(70, seed=1).to_parquet(place / "new.parquet")
    image_folder(place / "photos", images=12)

    @cache
    def go(target: str = "kind", *typed: str) -> Path:
        keys = ["data=csv", f"data.path={place / 'train.csv'}", f"data.target={target}"]
        keys = [*keys, f"data.drop=[{DROPPED[target]}]"] if target in DROPPED else [f"data={target}"]
        if target == "image_folder":
            keys = ["data=image_folder", f"data.path={place / 'photos'}"]
        folder = place / str(len([*place.iterdir()]))
        run(compose([*SMALL, *keys, *typed]), folder=folder)
        return folder

    return Made(go, place)


def answered(folder: Path, path: Path) -> pd.DataFrame:
    """What action=predict writes."""
    table = run(compose(["action=predict", f"ckpt={folder}/checkpoints/best.ckpt", f"input={path}"])).predictions
    assert table is not None
    return table


def same(one, other) -> None:
    """Asserts equal float32 numbers, to the last digit."""
    np.testing.assert_array_equal(np.asarray(one, np.float32), np.asarray(other, np.float32))


@pytest.mark.parametrize("categories", [pytest.param("onehot", marks=pytest.mark.slow), "embed"])
def test_the_answers_are_those_of_predict_for_a_file_a_frame_and_an_array(made, categories):
    folder, new = made("kind", f"data.categories={categories}"), made.place / "new.csv"
    model, table = load(folder), answered(folder, new)
    frame = pd.read_csv(new)
    assert model.feature_names_in_.tolist() == ["age", "job"]
    shuffled = frame[["price", "job", "age"]]
    for X in (new, str(new), made.place / "new.parquet", [new], frame, shuffled, frame[["age", "job"]].to_numpy()):
        same(model.predict_proba(X), table[["p_old", "p_young"]])
        assert model.predict(X).tolist() == table["prediction"].tolist()
    assert model.classes_.tolist() == ["old", "young"]
    assert model.score(frame, frame["kind"]) == accuracy_score(frame["kind"], table["prediction"])
    assert is_classifier(model)


def test_numbers_and_several_columns_are_answered_as_predict_does(made):
    new, frame = made.place / "new.csv", people(70, seed=1)
    one = load(made("price"))
    table = answered(made("price"), new)
    same(one.predict(frame), table["prediction"])
    assert one.score(frame, frame["price"]) == pytest.approx(r2_score(frame["price"], table["prediction"]))
    assert is_regressor(one)
    assert not hasattr(one, "predict_proba")
    several, table = load(made("[price,rent]")), answered(made("[price,rent]"), new)
    same(several.predict(frame), table[["prediction_price", "prediction_rent"]])
    labels, table = load(made("[owns,rents]")), answered(made("[owns,rents]"), new)
    assert labels.predict(frame).tolist() == table[["prediction_owns", "prediction_rents"]].to_numpy().tolist()
    same(np.stack([p[:, 1] for p in labels.predict_proba(frame)], 1), table[["p_owns=yes", "p_rents=yes"]])
    truth = frame[["owns", "rents"]]
    right = [accuracy_score(truth[name], table[f"prediction_{name}"]) for name in truth]
    assert labels.score(frame, truth) == pytest.approx(np.mean(right))


def test_images_are_answered_as_predict_does(made):
    folder, photos = made("image_folder", "model=mynet"), made.place / "photos"
    model, table = load(folder), answered(folder, photos)
    files = [photos / name for name in table["sample"]]
    pictures = [Image.open(file) for file in files]
    arrays = np.stack([np.asarray(picture) for picture in pictures])
    planes = arrays.transpose(0, 3, 1, 2)
    for X in (photos, files, pictures, arrays, planes, planes.reshape(len(planes), -1)):
        same(model.predict_proba(X), table[["p_a", "p_b"]])
    assert model.predict(pictures[0]).tolist() == table["prediction"][:1].tolist()
    assert model.n_features_in_ == 3 * 8 * 8
    with pytest.raises(ValueError, match="X has values of type float64; expected pictures"):
        model.predict(arrays / 255)
    with pytest.raises(ValueError, match="X: images of 5×4 pixels; the network was trained on 8×8: resize them"):
        model.predict(Image.new("RGB", (5, 4)))


@pytest.mark.parametrize(
    "name", ["wine", *(pytest.param(name, marks=pytest.mark.slow) for name in ("diabetes", "digits"))]
)
def test_bundled_sets_take_scikit_learns_arrays(made, name):
    """Of the test part, action=predict says the same."""
    model_key = "model=mynet" if name == "digits" else "model=net"
    folder = made(name, model_key)
    table: Any = run(compose(["action=predict", f"ckpt={folder}/checkpoints/best.ckpt"])).predictions
    model, bunch = load(folder), getattr(sklearn.datasets, f"load_{name}")()
    everything = model.predict(bunch.data) if name == "diabetes" else model.predict_proba(bunch.data)[:, 0]
    wanted = table["prediction" if name == "diabetes" else table.columns[3]].to_numpy()
    # The rows of the test part stand in other batches there, so that last digits may differ.
    nearest = np.abs(everything[:, None] - wanted[None]).min(0)
    np.testing.assert_allclose(nearest / np.abs(wanted).max(), 0, atol=1e-5)
    assert model.n_features_in_ == bunch.data.shape[1]
    with pytest.raises(ValueError, match=r"X.*(NaN or inf|NaN)"):
        model.predict(np.full_like(bunch.data, np.nan))
    if name == "digits":
        assert model.classes_.tolist() == [*range(10)]  # numbers, as scikit-learn's own target has them


def test_transform_gives_what_the_last_layer_takes(made):
    model, frame = load(made()), people(70, seed=1)
    features = model.transform(frame)
    assert features.shape == (70, 20)
    layer = model._answering.task.network.fc2
    logits = torch.from_numpy(features) @ layer.weight.detach().T + layer.bias.detach()
    np.testing.assert_allclose(logits.softmax(1), model.predict_proba(frame), rtol=1e-5)


def test_it_stands_where_scikit_learn_takes_a_fitted_estimator(made):
    model, frame = load(made()), people(70, seed=1)
    X, y = frame[["age", "job"]], frame["kind"]
    check_is_fitted(model)
    assert clone(model) is model
    importance: Any = permutation_importance(model, X, y, n_repeats=2, random_state=0)
    assert importance.importances.shape == (2, 2)
    head = LogisticRegression().fit(model.transform(X), y)
    pipeline = Pipeline([("features", model), ("head", head)])
    assert pipeline.predict(X).tolist() == head.predict(model.transform(X)).tolist()
    same(pickle.loads(pickle.dumps(model)).predict_proba(X), model.predict_proba(X))
    with pytest.raises(NotImplementedError, match="a loaded run is fitted already"):
        model.fit(X, y)
    with pytest.raises(ValueError, match="ckpt: what is loaded stays as it is"):
        model.set_params(ckpt="last")


CHECKS = [
    "methods_subset_invariance",
    "methods_sample_order_invariance",
    "estimator_repr",
    "valid_tag_types",
    "estimator_tags_renamed",
    "mixin_order",
    "estimator_cloneable",
    "readonly_memmap_input",
    "f_contiguous_array_estimator",
    "non_transformer_estimators_n_iter",
]


@pytest.fixture(scope="module")
def of_three_columns(tmp_path_factory):
    """A run on three numbers, as scikit-learn's checks bring them."""
    place = tmp_path_factory.mktemp("checks")
    x = np.random.default_rng(0).normal(size=(80, 3))
    frame = pd.DataFrame(x, columns=[*"abc"]).assign(y=(x[:, 0] > 0).astype(int))
    frame.to_csv(place / "train.csv", index=False)
    run(compose([*SMALL, "data=csv", f"data.path={place / 'train.csv'}", "data.target=y"]), folder=place / "run")
    return place / "run"


@pytest.mark.parametrize("check", CHECKS)
def test_scikit_learns_checks_that_need_no_fit_pass(of_three_columns, check):
    """Behind FrozenEstimator, whose fit does nothing: the checks call it."""
    getattr(estimator_checks, f"check_{check}")("Loaded", FrozenEstimator(load(of_three_columns)))


def test_what_does_not_fit_is_refused(made):
    model = load(made())
    frame: Any = people(10, seed=1)
    for X, message in (
        (frame[["age"]], "X: these columns are missing: job"),
        (frame[["age", "job"]].rename(columns={"age": "Age"}), "X: these columns are missing: age"),
        (np.zeros((4, 3)), r"X has the shape \(4, 3\); expected \(samples, 2\), with the columns age, job"),
        (np.zeros(2), r"X has the shape \(2,\)"),
        (frame.assign(age="old"), "X: column age has to hold numbers, but 'old' stands in row 1"),
        (frame[:0], "X holds no samples"),
        ([], r"X has the shape \(0,\)"),
        ("nwe.csv", "input=nwe.csv: No such file"),
    ):
        with pytest.raises(ValueError, match=message):
            model.predict(X)


def test_loading_leaves_torch_as_it_was(made):
    folder = made()

    def state() -> Any:
        flags = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
        numbers = torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())
        return flags, numbers, torch.get_float32_matmul_precision(), torch.is_grad_enabled(), torch.get_default_dtype()

    before = state()
    model = load(folder)
    model.predict(people(70, seed=1))
    assert state() == before
    assert not any(module.training for module in model._answering.task.modules())


def test_threads_may_ask_at_once(made):
    model = load(made())
    frames = [people(70, seed=seed) for seed in range(8)]
    alone = [(model.predict_proba(frame), model.transform(frame)) for frame in frames]
    with ThreadPoolExecutor(8) as pool:
        together = [*pool.map(lambda frame: (model.predict_proba(frame), model.transform(frame)), frames * 4)]
    for place, (probabilities, features) in enumerate(together):
        same(probabilities, alone[place % 8][0])
        same(features, alone[place % 8][1])


def test_a_folder_that_cannot_be_written_is_loaded_and_predicted_elsewhere(made, monkeypatch, tmp_path):
    folder = made()
    listed = sorted(folder.rglob("*"))
    closed = os.access

    def access(path, mode, **keys):  # the suite may run as root, who may write everywhere
        return not (mode & os.W_OK and Path(path).is_relative_to(folder)) and closed(path, mode, **keys)

    monkeypatch.setattr(os, "access", access)
    monkeypatch.chdir(tmp_path)
    of = f"ckpt={folder}/checkpoints/best.ckpt"
    load(folder).predict(made.place / "new.csv")
    for action in ("predict", "test"):
        typed = [f"action={action}", of, f"input={made.place / 'new.csv'}"]
        with pytest.raises(ConfigError, match=r"cannot be written: .* is read-only; out=<another folder> writes there"):
            compose(typed)
        run(compose([*typed, f"out=elsewhere/{action}"]))
    assert Path("elsewhere/predict/predictions.csv").is_file()
    assert sorted(folder.rglob("*")) == listed


def test_what_is_no_run_is_refused_in_a_line(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "a").mkdir(parents=True)
    (tmp_path / "outputs" / "a" / "config.yaml").touch()
    with pytest.raises(ConfigError, match="normlab.load: there is no run in a; did you mean outputs/a"):
        load("a")
    with pytest.raises(ConfigError, match="normlab.load: ckpt=lst: there is no file lst"):
        load(made(), ckpt="lst")
    copy = tmp_path / "copy"
    copy.mkdir()
    text = (made() / "config.yaml").read_text()
    (copy / "checkpoints").mkdir()
    (copy / "checkpoints" / "best.ckpt").touch()
    (copy / "config.yaml").write_text(text.replace("normlab.models.net.Net", "subprocess.Popen"))
    with pytest.raises(ConfigError, match=r"model._target_=subprocess.Popen is neither .* trust=\[subprocess\]"):
        load(copy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(made(), ckpt="last").predict(people(5)).shape == (5,)
