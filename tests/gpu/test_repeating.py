"""What a GPU repeats bit for bit, and how exact its products are."""

import pytest
import torch
from helpers.folders import state
from helpers.stopping import stopped

from normlab import compose, run

pytestmark = pytest.mark.gpu

SETTINGS = ["logger=none", "trainer=gpu", "trainer.deterministic=true", "trainer.max_epochs=3", "data.batch_size=200"]


@pytest.fixture(autouse=True)
def torchs_own_settings():
    """Puts back what a run leaves behind for the process."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("model", ["mynet", "resnet", "my_model"])
def test_a_stopped_run_resumes_and_ends_on_the_same_weights(tmp_path, monkeypatch, model, precision):
    settings = [*SETTINGS, f"model={model}", f"trainer.precision={precision}"]
    run(compose(settings), folder=tmp_path / "whole")
    stopped(monkeypatch, tmp_path / "part", settings, RuntimeError("killed"))
    run(compose(settings), folder=tmp_path / "part")
    whole, part = (state(tmp_path / name)["state_dict"] for name in ("whole", "part"))
    assert [key for key, value in whole.items() if not torch.equal(value, part[key])] == []


@pytest.mark.parametrize(("precision", "least", "most"), [("highest", 0, 1e-5), ("high", 1e-5, 1e-2)])
def test_the_precision_of_products_reaches_the_gpu(tmp_path, precision, least, most):
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("TF32 came with compute capability 8.0")
    run(compose([*SETTINGS, "model=net", "data=wine", f"trainer.matmul_precision={precision}"]), folder=tmp_path)
    x = torch.randn(512, 512, generator=torch.Generator().manual_seed(0))
    expected = x.double() @ x.double()
    off = (x.cuda() @ x.cuda()).cpu().double() - expected
    assert least <= off.norm() / expected.norm() < most
