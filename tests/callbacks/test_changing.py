"""Callbacks that change the network while it trains: larger initial weights, noise behind norms, dropout."""

import copy

import pytest
import torch
from helpers.asking import assert_goes_on
from helpers.folders import assert_same_weights
from lightning import Callback
from torch import nn
from torch.nn import functional as F

from normlab import compose, run
from normlab.callbacks.dropout import Dropout
from normlab.callbacks.initial_scale import InitialScale
from normlab.callbacks.noisy_norms import NoisyNorms
from normlab.errors import ConfigError
from normlab.folder.identity import config_hash
from normlab.models.mynet import MyNet
from normlab.norms.batch import Batch

WINE = ["model=net", "data=wine", "logger=none", "trainer=cpu", "trainer.max_epochs=2", "data.batch_size=20"]
ALL = ["callbacks=[initial_scale,noisy_norms,dropout]", "callbacks.initial_scale.factor=0.3"]
NONE = ["callbacks=[initial_scale,noisy_norms,dropout]", "callbacks.initial_scale.factor=1", "callbacks.dropout.p=0"]
NONE += [*(f"callbacks.noisy_norms.{key}=0" for key in ("n_mu", "r_mu", "r_sigma")), "callbacks.noisy_norms.n_sigma=1"]


class AtStart(Callback):
    """Keeps the weights before the first step, and after it."""

    def on_train_start(self, trainer, pl_module):
        self.weights = copy.deepcopy(pl_module.network.state_dict())

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 1:
            self.stepped = copy.deepcopy(pl_module.network.state_dict())


def at_start(folder, *overrides):
    seen = AtStart()
    result = run(compose(["data=digits", "trainer=debug", "logger=none", *overrides]), folder=folder, callbacks=[seen])
    return seen, result.task.network


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The weights of a run with none of the callbacks."""
    return at_start(tmp_path_factory.mktemp("plain") / "run")[0]


def test_initial_weights_are_multiplied_once_and_biases_are_not(tmp_path, plain):
    scaled, network = at_start(tmp_path / "scaled", "callbacks=initial_scale", "callbacks.initial_scale.factor=3")
    kinds = {name: type(module) for name, module in network.named_modules()}
    multiplied = {f"{name}.weight" for name, kind in kinds.items() if kind in (nn.Conv2d, nn.Linear)}
    assert len(multiplied) > 1
    for name, values in plain.weights.items():
        assert torch.equal(scaled.weights[name], values * 3 if name in multiplied else values), name


def test_a_weight_that_two_layers_share_is_multiplied_once():
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    network[2].weight = network[0].weight
    before = network[0].weight.clone()
    InitialScale(0.5).change(network)
    assert torch.equal(network[2].weight, before / 2)


def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path):
    assert_goes_on(tmp_path, [*WINE, *ALL], ("on_train_batch_start", 8))


@pytest.mark.parametrize(
    "trainer",
    [
        pytest.param("ddp_cpu", marks=pytest.mark.slow),
        pytest.param("fsdp trainer.devices=2", marks=pytest.mark.endurance),
    ],
)
def test_several_processes_that_were_interrupted_too(tmp_path, trainer):
    overrides = [*WINE, *ALL, *f"trainer={trainer}".split(), "trainer.accelerator=cpu"]
    assert_goes_on(tmp_path, overrides, ("on_train_batch_start", 4), rank=1)


def test_without_any_of_it_training_is_the_same(tmp_path):
    run(compose(WINE), folder=tmp_path / "plain")
    run(compose([*WINE, *NONE]), folder=tmp_path / "none")
    assert_same_weights(tmp_path / "plain", tmp_path / "none")


@pytest.mark.parametrize("callback", ["dropout", "noisy_norms"])
def test_a_fit_leaves_no_hook_behind_and_trains_otherwise(tmp_path, plain, callback):
    changed, network = at_start(tmp_path / "run", f"callbacks={callback}")
    assert torch.equal(changed.weights["fc1.weight"], plain.weights["fc1.weight"])
    assert not torch.equal(changed.stepped["fc1.weight"], plain.stepped["fc1.weight"])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_dropout_is_torchs_in_front_of_all_linear_layers_but_the_first():
    network = nn.Sequential(nn.Linear(6, 50), nn.ReLU(), nn.Linear(50, 40), nn.ReLU(), nn.Linear(40, 3))
    x = torch.randn(8, 6)
    first, _, second, _, third = copy.deepcopy(network)
    Dropout(0.3).change(network)
    assert torch.equal(network.eval()(x), third(second(first(x).relu()).relu()))
    torch.manual_seed(5)
    output = network.train()(x)
    torch.manual_seed(5)
    hidden = second(F.dropout(first(x).relu(), 0.3))
    assert torch.equal(output, third(F.dropout(hidden.relu(), 0.3)))


@pytest.mark.parametrize(
    ("network", "dropped"),
    [
        (MyNet(Batch(), (3, 8, 8), 4), ["fc1"]),
        (nn.TransformerEncoderLayer(8, 2, 16), ["linear1", "linear2"]),
    ],
    ids=["mynet", "transformer"],
)
def test_which_layers_drop(network, dropped):
    Dropout().change(network)
    assert [name for name, module in network.named_modules() if module._forward_pre_hooks] == dropped


def noise(layer, x, *steps, **keys):
    """What a layer gives in training with noise behind it, in each of some steps."""
    network = nn.Sequential(layer)
    NoisyNorms(**keys).change(network)
    return [network(x).detach() for _ in steps]


def constant(layer, value):
    """A layer that gives the same value everywhere."""
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, value)
    return layer


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_noise_has_the_moments_of_its_source(channels_last):
    torch.manual_seed(0)
    channels = 500

    def made():
        return nn.LayerNorm(channels) if channels_last else nn.BatchNorm2d(channels)

    x = torch.randn(16, 6, channels) if channels_last else torch.randn(16, channels, 3, 2)
    first, second = (
        y.movedim(-1, 1).flatten(2) if channels_last else y.flatten(2) for y in noise(constant(made(), 0.0), x, 1, 2)
    )
    added = first.transpose(0, 1).flatten(1)  # (C, 96): y = 0, and what is added remains
    means = added.mean(1)
    assert means.abs().max() <= 0.6
    assert means.std().item() == pytest.approx(0.5 / 3**0.5, rel=0.1), "uniform from -0.5 to 0.5"
    assert ((added - means[:, None]).abs().max() <= 0.2) & (added.amax(1) - added.amin(1) <= 0.2).all()
    assert (added - means[:, None]).std().item() == pytest.approx(0.1 / 3**0.5, rel=0.05), "each value its own"
    others = second.transpose(0, 1).flatten(1).mean(1)
    assert abs(torch.corrcoef(torch.stack([means, others]))[0, 1]) < 0.2, "another one in each step"
    (scaled,) = noise(constant(made(), 1.0), x, 1, n_mu=0, r_mu=0)
    factors = (scaled.movedim(-1, 1) if channels_last else scaled).transpose(0, 1).flatten(1)
    assert factors.mean(1).std().item() == pytest.approx(0.25 / 12**0.5, rel=0.15), "uniform from 1 to 1.25"
    assert factors.mean().item() == pytest.approx(1.125, abs=0.01)
    assert factors.std(1).mean().item() == pytest.approx(0.1, rel=0.05)


def test_there_is_no_noise_in_evaluation():
    layer = nn.BatchNorm1d(4)
    x = torch.randn(8, 4)
    expected = layer.eval()(x)
    assert torch.equal(noise(layer, x, 1)[0], expected)


@pytest.mark.parametrize(
    "callback", ["initial_scale", "noisy_norms", "dropout", "precise_bn", "ema", "swa", "lookahead"]
)
def test_they_belong_to_what_a_run_is(callback):
    assert config_hash(compose(["model=net", "data=wine", f"callbacks={callback}"])) != config_hash(compose(WINE[:2]))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["callbacks=noisy_norms", "compile=true"], "callbacks=noisy_norms works by hooks.*set compile=false"),
        (["callbacks=dropout", "compile=true"], "callbacks=dropout works by hooks.*set compile=false"),
        (["callbacks=initial_scale", "init=x.pth"], "initial_scale multiplies the weights.*init=x.pth puts others"),
        (["callbacks=initial_scale", "callbacks.initial_scale.factor=0"], "factor=0"),
        (["callbacks=dropout", "callbacks.dropout.p=1"], "p=1"),
    ],
)
def test_refusals_without_torch(overrides, message):
    with pytest.raises(ConfigError, match=message):
        compose(overrides)


@pytest.mark.parametrize(
    ("callback", "network", "message"),
    [
        (InitialScale(2), nn.BatchNorm1d(3), "no convolution or linear layer"),
        (NoisyNorms(), nn.Linear(3, 3), "no norm layer"),
        (Dropout(), nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Conv1d(3, 3, 1)), "no linear layer follows another"),
    ],
    ids=["initial_scale", "noisy_norms", "dropout"],
)
def test_a_network_with_nothing_to_change_is_refused(callback, network, message):
    with pytest.raises(ConfigError, match=message):
        callback.change(network)


def test_a_compiled_network_is_refused_by_a_callback_given_from_python():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network._compiled_call_impl = network.forward  # what network.compile() sets, and takes seconds for
    with pytest.raises(ConfigError, match="Dropout works by them: use compile=false"):
        Dropout().change(network)
