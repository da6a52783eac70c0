"""`compile=true` with many steps in a call: both passes of a batch are one compiled graph, and train as eager ones."""

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from normlab import compose, run
from normlab.models.net import Net

pytestmark = pytest.mark.slow  # code is compiled

WINE = ["model=net", "data=wine", "data.batch_size=8", "trainer=cpu", "trainer.max_epochs=2", "logger=none"]
DOUBLE = "trainer.precision=64-true"
IMAGES = ["model=mynet", "data=digits", "data.size=8", "data.subset=200", "data.batch_size=64"]
# By AdamW's own eps the noise of a gradient of 0, as that of a bias before a norm, would move weights as others do.
SAME = {  # overrides, and by how much weights and statistics may differ
    "float32": ([], 1e-6),
    "float64": ([DOUBLE], 1e-12),
    "adamw": (["optimizer=adamw", "+optimizer.eps=1e-3", "scheduler=cosine", DOUBLE], 1e-12),
    "own norm": (["norm=renorm", DOUBLE], 1e-12),
    "parts of a batch": (["norm=ghost", "norm.size=4", "data.drop_last=true", DOUBLE], 1e-12),
    "numbers": (["data=diabetes", DOUBLE], 1e-12),
    "soft targets": (["loss=label_smoothing", DOUBLE], 1e-12),
    "images": ([*IMAGES, DOUBLE], 1e-10),
    "bf16": (["trainer.precision=bf16-mixed"], 0.02),
}


def trained(folder, *overrides) -> dict[str, Tensor]:
    """The network's weights and statistics after a run in a folder of its own."""
    counters.clear()
    network = run(compose([*WINE, *overrides]), folder=folder).task.network
    return {name: values.double() for name, values in network.state_dict().items()}


def assert_alike(one, two, tolerance):
    assert one.keys() == two.keys()
    for name, values in one.items():
        torch.testing.assert_close(two[name], values, rtol=0, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("case", SAME)
def test_one_graph_trains_as_eager_steps(case, tmp_path):
    overrides, tolerance = SAME[case]
    eager = trained(tmp_path / "eager", *overrides)
    compiled = trained(tmp_path / "compiled", *overrides, "steps_per_execution=4", "compile=true")
    assert not counters["graph_break"]  # a backward pass outside of the graph would be one
    assert_alike(eager, compiled, tolerance)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's, in what it resumes
def test_what_cannot_be_compiled_in_one_piece_trains_alike(tmp_path, monkeypatch):
    """torch 2.15 gives such a network no gradients at all where a backward pass is in the compiled function."""
    forward = Net.forward

    def broken(self, x):
        x = forward(self, x)
        torch._dynamo.graph_break()
        return x * 2

    monkeypatch.setattr(Net, "forward", broken)
    torch._dynamo.reset()  # torch does not look whether a class has another method than before
    eager = trained(tmp_path / "eager", DOUBLE)
    compiled = trained(tmp_path / "compiled", DOUBLE, "steps_per_execution=4", "compile=true")
    assert (
        "forward and backward pass are compiled apart: Call to `torch._dynamo.graph_break()`"
        in (tmp_path / "compiled" / "train.log").read_text()
    )
    assert_alike(eager, compiled, 1e-12)


def test_a_frozen_part_stays_as_it_was(tmp_path):
    frozen = ["freeze=fc1", DOUBLE]
    eager = trained(tmp_path / "eager", *frozen)
    compiled = trained(tmp_path / "compiled", *frozen, "steps_per_execution=4", "compile=true")
    assert_alike(eager, compiled, 1e-12)
