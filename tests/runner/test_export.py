"""action=export: the file answers as the checkpoint does, where normlab cannot be imported; or it is refused."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from helpers.cases import ROOT, options, rest_slow
from helpers.networks import SHAPE, built
from helpers.samples import image_folder
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_wine
from torch import nn

from normlab import compose, run
from normlab.errors import ConfigError
from normlab.models.net import Net
from normlab.norms.batch import Batch
from normlab.runner import exports
from normlab.runner.export import Trial
from normlab.runner.exports.common.graph import Served, Source

SMALL = ["logger=none", "trainer.max_epochs=2"]
TRUST = "trust=[test_export]"
# What somebody does with a file who has its format's own package and export.json alone.
USER = {
    "onnx": "import onnxruntime; s = onnxruntime.InferenceSession(file); run = lambda x: s.run(None, {'input': x})[0]",
    "torch_export": "import torch; n = torch.export.load(file).module(); "
    "run = lambda x: n(torch.from_numpy(x)).detach().numpy()",
    "aoti": "import torch; n = torch._inductor.aoti_load_package(file); run = lambda x: n(torch.from_numpy(x)).numpy()",
}
ALONE = """
import sys
sys.modules["normlab"] = None
import numpy as np
file, samples, target = sys.argv[1:]
{user}
x = np.load(samples)
np.savez(target, *[np.concatenate([run(x[i:i + n]) for i in range(0, len(x), n)]) for n in (1, 2, 7, len(x))])
"""


def answers_alone(name: str, file: Path, samples: np.ndarray, place: Path) -> list[np.ndarray]:
    """What an exported file answers in batches of 1, 2, 7 and all, in a process without normlab."""
    np.save(place / "x.npy", samples)
    code = ALONE.format(user=USER[name])
    paths = [str(file), str(place / "x.npy"), str(place / "y.npz")]
    subprocess.run([sys.executable, "-c", code, *paths], check=True, timeout=300)
    with np.load(place / "y.npz") as found:
        return [found[key] for key in found.files]


def table(path: Path, rows: int, seed: int) -> None:
    """Numbers far from zero and with gaps, and categories of which the first file has the first three."""
    random = np.random.default_rng(seed)
    size, kind = random.normal(1e6, 3, rows), random.choice(list("abcd"[: 3 + seed]), rows)
    frame = pd.DataFrame({"size": size.round(3), "age": random.normal(40, 9, rows), "kind": kind})
    frame["bought"] = np.where((size > 1e6) ^ (kind == "b"), "yes", "no")
    frame.loc[random.random(rows) < 0.2, "age"] = np.nan
    frame.to_csv(path, index=False)


def rows_of(path: str, told: dict) -> np.ndarray:
    """A table's rows as export.json says that they are given."""
    frame, columns = pd.read_csv(path), []
    for column in told["columns"]:
        values = frame[column["name"]]
        if "values" in column:
            values = [column["values"].index(v) if v in column["values"] else column["unknown"] for v in values]
        columns.append(np.asarray(values, dtype=told["dtype"]))
    return np.stack(columns, axis=1)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not [*tmp_path.rglob(".export-*")]
    assert not [*tmp_path.rglob("*.part")]


def exported(*overrides: str, data=None) -> dict:
    """Exports the run outputs/a; what export.json says of the only file."""
    run(compose(["action=export", "name=a", TRUST, *overrides]), data=data)
    (facts,) = json.loads(Path("outputs/a/export/export.json").read_text()).values()
    return facts


@pytest.mark.slow
@pytest.mark.parametrize(("name", "categories"), [("onnx", "onehot"), ("onnx", "embed"), ("aoti", "onehot")])
def test_a_tables_file_answers_rows_as_predict_does(name, categories, place):
    table(place / "train.csv", 120, 0)
    table(place / "test.csv", 40, 1)
    files = ["data=csv", "data.path=train.csv", "data.test_path=test.csv", "data.target=bought"]
    run(compose([*SMALL, "model=net", *files, f"data.categories={categories}", "name=a"]))
    predictions = run(compose(["action=predict", "name=a"])).predictions
    facts = exported(f"format={name}")
    file = place / "outputs/a/export" / exports.module(name).FILE
    assert facts["output"]["class_names"] == ["no", "yes"]
    for found in answers_alone(name, file, rows_of("test.csv", facts["input"]), place):
        np.testing.assert_allclose(found, predictions[["p_no", "p_yes"]], rtol=0, atol=1e-5)
    result = json.loads((place / "outputs/a/export/result.json").read_text())
    assert result["metrics"]["export/difference"] <= 1e-5
    assert result["metrics"]["export/bytes"] == file.stat().st_size


@pytest.mark.slow
def test_a_file_of_images_takes_them_as_they_are_decoded(place):
    image_folder(place / "photos", images=30)
    image_folder(place / "new", images=6)
    chosen = ["model=my_model", "data=image_folder", "data.path=photos", "data.batch_size=16"]
    run(compose([*SMALL, *chosen, "trainer.precision=64-true", "name=a"]))
    predictions = run(compose(["action=predict", "name=a", "input=new"])).predictions
    facts = exported("format=torch_export")
    assert facts["input"]["dtype"] == "uint8"
    images = [np.asarray(Image.open(place / "new" / sample)).transpose(2, 0, 1) for sample in predictions["sample"]]
    file = place / "outputs/a/export/model.pt2"
    for found in answers_alone("torch_export", file, np.stack(images), place):
        np.testing.assert_allclose(found, predictions[["p_a", "p_b"]], rtol=0, atol=1e-5)


def test_safetensors_hold_the_networks_own_weights(place):
    run(compose([*SMALL, "model=net", "data=wine", "name=a"]))
    facts = exported("format=safetensors")
    weights = load_file("outputs/a/export/model.safetensors")
    network = Net(Batch(), (13,), 3)
    network.load_state_dict(weights)
    saved = torch.load("outputs/a/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(saved[f"network.{key}"], value) for key, value in weights.items())
    assert facts["preprocessing"]["inside"] is False
    assert len(facts["preprocessing"]["scale"]) == 13


@pytest.mark.slow
def test_numbers_come_in_their_own_units(place):
    run(compose([*SMALL, "model=net", "data=diabetes", "name=a"]))
    predictions = run(compose(["action=predict", "name=a"])).predictions["prediction"]
    facts = exported("format=onnx")
    assert facts["output"]["columns"] == [""]
    assert facts["figures"]["export/difference"] <= 1e-5
    assert predictions.mean() > 100  # diabetes's target is far from standardised


@pytest.mark.slow
def test_the_server_of_the_docs_answers_as_predict_does(place):
    client = pytest.importorskip("fastapi.testclient")
    page = (ROOT / "docs" / "export.md").read_text()
    train, serve = (block for block in re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S) if "wine" in block)
    exec(train, {})
    served: dict = {}
    exec(serve, served)
    wine = load_wine()
    answers = client.TestClient(served["app"]).post("/predict", json=wine.data.tolist()).json()
    right = [max(each, key=each.get) == wine.target_names[y] for each, y in zip(answers, wine.target, strict=True)]
    result = json.loads(Path("outputs/wine/result.json").read_text())
    assert np.mean(right) == pytest.approx(result["metrics"]["test/acc"], abs=0.1)
    assert all(sum(each.values()) == pytest.approx(1) for each in answers)


@pytest.mark.slow
def test_int8_says_what_it_costs(place, capsys):
    run(compose([*SMALL, "model=my_model", "data=digits", "data.size=8", "data.subset=0.3", "name=a"]))
    result = run(compose(["action=export", "name=a", "format=onnx", "int8=true"]))
    fit = json.loads(Path("outputs/a/result.json").read_text())["metrics"]
    assert result.metrics["export/checkpoint_acc"] == pytest.approx(fit["test/acc"])
    assert abs(result.metrics["export/acc"] - fit["test/acc"]) < 0.2
    assert f"acc {result.metrics['export/acc']:.4f} (checkpoint {fit['test/acc']:.4f})" in capsys.readouterr().out
    assert [path.name for path in Path("outputs/a/export").glob("*.onnx")] == ["model.int8.onnx"]
    graph = onnx.load("outputs/a/export/model.int8.onnx").graph
    scales = [tuple(each.dims) for each in graph.initializer if "conv1" in each.name and each.name.endswith("scale")]
    assert (64,) in scales  # a scale for each output channel


class Counting(nn.Module):
    """Writes what it sees into a buffer, in evaluation too."""

    def __init__(self, input_shape, out_features):
        super().__init__()
        self.fc = nn.Linear(input_shape[0], out_features)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.fc(x)


class Together(nn.Module):
    """Looks at the other samples of a batch."""

    def __init__(self, input_shape, out_features):
        super().__init__()
        self.fc = nn.Linear(input_shape[0], out_features)

    def forward(self, x):
        return self.fc(x - x.mean(0))


@torch.library.custom_op("test_export::odd", mutates_args=())
def odd(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@odd.register_fake
def _(x):
    return torch.empty_like(x)


odd.register_autograd(lambda context, upstream: upstream * 2)


class Odd(Together):
    """Calls an operator that ONNX does not have."""

    def forward(self, x):
        return odd(self.fc(x))


class OneSize(Together):
    """Is recorded for the batch that it is recorded with."""

    def forward(self, x):
        return self.fc(x.view(len(x), -1))


class ByValue(Together):
    """Goes another way for other values."""

    def forward(self, x):
        return self.fc(x) if x.mean() > 100 else self.fc(2 * x)


@pytest.mark.parametrize(
    ("kind", "message"),
    rest_slow(
        [
            ("Counting", r"in evaluation the network still writes into network\.calls"),
            ("Together", r"off the checkpoint's by .* for some size of batch; 1e-05 is allowed"),
            ("Odd", r"cannot be exported: .*test_export[.:]+odd"),
            ("OneSize", r"for batches of one size alone, as len\(x\)"),
            ("ByValue", r"cannot be exported: .*reads values of its batch \(__bool__\)"),
        ],
        lambda case: case[0] in ("Counting", "ByValue"),
    ),
)
def test_a_network_that_no_file_can_stand_for_is_refused(kind, message, place):
    own = [f"model._target_=test_export.{kind}", "data=wine", "name=a"]
    run(compose([*SMALL, *own]))
    with pytest.raises(ConfigError, match=message) as error:
        exported("format=onnx")
    assert "\n" not in str(error.value)
    left = {path.name for path in Path("outputs/a/export").iterdir()}
    assert left == {".lock", "result.json", "train.log", "config.yaml", "environment.json"}


def test_answers_that_depend_on_the_batch_are_refused(place):
    run(compose([*SMALL, "model=net", "norm=prediction_time", "data=wine", "name=a"]))
    with pytest.raises(ConfigError, match=r"bn1 \(.*\) takes statistics of the batch in evaluation too"):
        exported("format=torch_export")


def test_a_file_that_is_wrong_replaces_none(place, monkeypatch):
    run(compose([*SMALL, "model=net", "data=wine", "name=a"]))
    exported("format=safetensors")
    before = Path("outputs/a/export/model.safetensors").read_bytes()
    monkeypatch.setattr("normlab.runner.export.TOLERANCE", -1.0)
    with pytest.raises(ConfigError, match="off the checkpoint's by 0.0e"):
        exported("format=safetensors")
    assert Path("outputs/a/export/model.safetensors").read_bytes() == before


def test_own_data_is_exported_as_it_comes(place):
    x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    data = [(x[:40], (x[:40, 0] > 0).astype(int)), (x[40:], (x[40:, 0] > 0).astype(int))]
    run(compose([*SMALL, "model=net", "name=a"]), data=data)
    facts = exported("format=safetensors", data=data)
    assert facts["input"]["samples"] == "as the data module gives them"


REFUSALS = {
    ("export", None, False): "say what to write, format=aoti or onnx or safetensors or torch_export",
    ("export", "onxx", False): "format=onxx: expected one of .*did you mean onnx",
    ("export", "torchscript", False): "torch has deprecated TorchScript; format=torch_export",
    ("export", "torch_export", True): "int8=true with format=torch_export: choose format=onnx",
    ("fit", "onnx", False): "format=onnx with action=fit: action=export",
    ("test", None, True): "int8=true with action=test: action=export",
}


@pytest.mark.parametrize("typed", REFUSALS)
def test_what_cannot_be_written_is_refused(typed):
    config = compose([])
    config.action, config.format, config.int8 = typed
    with pytest.raises(ConfigError, match=REFUSALS[typed]):
        exports.check_format(config)


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch):
    config = compose([])
    config.action, config.format = "export", "onnx"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"onnxscript and onnxruntime are not installed; pip install -e '.\[export\]'"
    ):
        exports.check_format(config)
    config.format = "aoti"
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="format=aoti compiles C\\+\\+, and there is no no-such-compiler"):
        exports.check_format(config)


def test_a_run_without_an_epoch_has_nothing_to_export(place):
    run(compose([*SMALL, "model=net", "data=wine", "name=a"]))
    for file in Path("outputs/a/checkpoints").iterdir():
        file.unlink()
    with pytest.raises(ConfigError, match="has no checkpoint yet; let its fit end an epoch"):
        compose(["action=export", "name=a", "format=onnx"])


def test_formats_are_known_without_torch():
    code = (
        "import sys; from normlab.runner import exports\n"
        "print([exports.module(name).FILE for name in exports.formats()]); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "model.onnx" in done.stdout


@pytest.mark.endurance
@pytest.mark.parametrize("norm", options("norm"))
@pytest.mark.parametrize("model", options("model"))
def test_every_network_and_norm_is_exported(model, norm, tmp_path):
    """Files are loaded in processes without normlab, and compared at several sizes of batch."""
    if norm == "prediction_time":
        pytest.skip("its answers depend on the batch")
    try:
        network = built(model, norm).eval()
    except ValueError as error:
        pytest.skip(str(error))
    x = torch.randn(9, *SHAPE)
    source = Source(Served(nn.Identity(), network, nn.Identity()), x[:2])
    with torch.no_grad():
        expected = network(x).numpy()
    for name in ("torch_export", "onnx"):
        form = exports.module(name)
        form.write(source, str(tmp_path / form.FILE))
        trial = Trial(form, x.numpy(), lambda network: expected, network)
        assert trial.run(tmp_path / form.FILE)["export/difference"] <= 1e-5
