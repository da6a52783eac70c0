"""Adaptive gradient clipping against timm's, and within Lightning's step."""

import copy

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from timm.utils.agc import adaptive_clip_grad
from torch import nn
from torch.utils.data import DataLoader

from normlab.callbacks.agc import AdaptiveGradientClipping, clip, unit_norms
from normlab.errors import ConfigError
from normlab.norms.nf import NormFree

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


def network() -> nn.Module:
    torch.manual_seed(0)
    norm = NormFree()
    return nn.Sequential(norm.conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.Flatten(), nn.Linear(96, 4))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_it_is_timms(scale):
    ours = network().double()
    for parameter in ours.parameters():
        parameter.grad = torch.randn_like(parameter) * scale
    ours[0].bias.grad.zero_()
    nn.init.zeros_(ours[2].weight)  # ε is its norm
    theirs = copy.deepcopy(ours)
    for parameter, original in zip(theirs.parameters(), ours.parameters(), strict=True):
        parameter.grad = original.grad.clone()
    adaptive_clip_grad(theirs.parameters(), clip_factor=0.02, eps=1e-3)
    for parameter in ours.parameters():
        clip(parameter, 0.02, 1e-3)
    for parameter, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-12, atol=0)


def test_no_unit_keeps_more_than_its_part_and_small_gradients_stay():
    weight = nn.Parameter(torch.randn(5, 3, 2, 2, dtype=torch.float64))
    weight.grad = torch.randn_like(weight)
    weight.grad[0] *= 1e-6
    small = weight.grad[0].clone()
    clip(weight, 0.01, 1e-3)
    ratio = (unit_norms(weight.grad) / unit_norms(weight)).flatten()
    torch.testing.assert_close(ratio[1:], torch.full((4,), 0.01, dtype=torch.float64))
    assert torch.equal(weight.grad[0], small)


class Task(LightningModule):
    """The network with a loss large enough to be clipped."""

    def __init__(self):
        super().__init__()
        self.network = network()

    def training_step(self, batch, batch_idx):
        return self.network(batch).square().sum() * 10

    def configure_optimizers(self):
        return torch.optim.SGD(self.network.parameters(), lr=1e-3)


class Seen(Callback):
    """Keeps the gradients that the optimizer gets."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradients = {name: p.grad.clone() for name, p in pl_module.network.named_parameters()}


def fit(task: Task, *callbacks: Callback, **settings) -> None:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    settings = {"max_steps": 1, "accelerator": "cpu", **quiet, **settings}
    batches = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)).split(4)
    Trainer(callbacks=list(callbacks), **settings).fit(task, DataLoader(batches, batch_size=None))


def clipped(exclude: list[str], **settings) -> dict[str, torch.Tensor]:
    """The gradients of an unclipped run, clipped by timm."""
    seen, task = Seen(), Task()
    weights = copy.deepcopy(task.network)
    fit(task, seen, **settings)
    for name, parameter in weights.named_parameters():
        parameter.grad = seen.gradients[name]
    adaptive_clip_grad(p for n, p in weights.named_parameters() if n.rsplit(".", 1)[0] not in exclude)
    return {name: p.grad for name, p in weights.named_parameters()}


@pytest.mark.parametrize(("exclude", "left"), [(None, ["4"]), ([], []), (["0", "4"], ["0", "4"])])
@pytest.mark.parametrize("settings", [{}, {"accumulate_grad_batches": 2}], ids=str)
def test_the_optimizer_gets_clipped_gradients(exclude, left, settings):
    seen = Seen()
    fit(Task(), AdaptiveGradientClipping(exclude=exclude), seen, **settings)
    for name, expected in clipped(left, **settings).items():
        torch.testing.assert_close(seen.gradients[name], expected, rtol=1e-5, atol=1e-9)


def scaling() -> MixedPrecision:
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))


def test_with_a_gradient_scaler_it_sees_unscaled_gradients():
    seen = Seen()
    fit(Task(), AdaptiveGradientClipping(), seen, plugins=[scaling()])
    for name, expected in clipped(["4"], plugins=[scaling()]).items():
        torch.testing.assert_close(seen.gradients[name], expected, rtol=1e-5, atol=1e-9)
    assert seen.gradients["0.weight"].norm() < 1


def test_a_layer_that_is_not_there_is_refused_before_training():
    with pytest.raises(ConfigError, match=r"callbacks.agc.exclude: the network has no layer fc9 \(layers: 0, 1, 2"):
        fit(Task(), AdaptiveGradientClipping(exclude=["fc9"]))


def test_a_network_whose_output_layer_is_not_known_asks_for_names():
    task = Task()
    task.network = nn.PReLU()
    with pytest.raises(ConfigError, match=r"get_classifier.*callbacks.agc.exclude, \[\] for none"):
        fit(task, AdaptiveGradientClipping())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"clipping": 0}, "clipping=0"), ({"eps": -1}, "eps=-1"), ({"exclude": "fc1"}, "exclude=fc1: expected null or")],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=f"callbacks.agc.*{message}"):
        AdaptiveGradientClipping(**arguments)


def test_many_steps_in_a_call_are_refused(quick_run):
    with pytest.raises(ConfigError, match=r"AdaptiveGradientClipping acts in on_before_optimizer_step; with steps_per"):
        quick_run("model=net", "norm=nf", "callbacks=agc", "steps_per_execution=4")
