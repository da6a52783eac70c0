"""NaN and infinities in training: a run is as if the batch had not been, and the message says where they began."""

import itertools
import math

import pytest
import torch
from helpers.cases import rest_slow
from helpers.folders import result_of
from helpers.scaling import Scaled
from lightning import Callback
from torch import nn
from torch.nn import functional as F

from normlab import compose, run
from normlab.data.common.base import DataModule
from normlab.models.net import Net
from normlab.norms.batch import Batch
from normlab.runner.build import Context, build
from normlab.tasks.base import Task
from normlab.tasks.guard import Guard
from normlab.tasks.nonfinite import explain
from normlab.tasks.optimizers import parameter_groups

SETTINGS = ["model=net", "logger=none", "trainer=cpu", "trainer.max_epochs=2"]
BATCHES = 8


class Table(DataModule):
    """Eight training batches of 16; `spoil` changes (x, y) of the training part, whose order is known."""

    task, input_shape, out_features = "classify", (5,), 3

    def __init__(self, spoil=lambda x, y: None, where="train"):
        super().__init__(batch_size=16)
        self.spoil, self.where = spoil, where

    def load(self):
        raise AssertionError

    def setup(self, stage=None):
        random = torch.Generator().manual_seed(0)
        for name, samples in (("train", BATCHES * 16), ("val", 32), ("test", 32)):
            x = torch.randn(samples, 5, generator=random)
            self.splits[name] = x, (x[:, 0] > 0).long() + (x[:, 1] > 0)
        self.spoil(*self.splits[self.where])


def a_nan(x, y):
    x[3, 2] = math.nan


class Before(Callback):
    """Weights and buffers as they were before each batch."""

    def on_train_batch_start(self, trainer, task, *_):
        self.state = {key: value.clone() for key, value in task.network.state_dict().items()}
        self.network = task.network


def state(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.parametrize("steps", [1, 4])
def test_raise_names_the_batch_and_leaves_everything_as_before(tmp_path, steps):
    watch = Before()
    where = r"train/loss is nan in epoch 0, step \d: 1 of the batch's 16 samples hold NaN or inf in x; clean the data"
    with pytest.raises(FloatingPointError, match=where + r".*nonfinite=skip leaves such batches out"):
        run(compose([*SETTINGS, f"steps_per_execution={steps}"]), tmp_path, Table(a_nan), [watch] if steps == 1 else [])
    assert result_of(tmp_path)["status"] == "failed"
    assert "step" in result_of(tmp_path)["error"]
    if steps == 1:
        for key, value in watch.network.state_dict().items():
            assert torch.equal(value, watch.state[key]), key
        assert torch.isfinite(watch.network.bn1.running_mean).all()


def test_the_last_checkpoint_stays_good_and_skip_may_go_on_from_it(tmp_path):
    data, settings = Table(), [*SETTINGS, "scheduler=none"]
    data.augmentation = lambda: lambda x, index, epoch: x.fill_(math.nan) if epoch and 5 in index else x
    with pytest.raises(FloatingPointError, match=r"epoch 1, step \d+: 16 of the batch's 16 samples"):
        run(compose(settings), tmp_path / "a", data)
    run(compose([*settings, "trainer.max_epochs=1"]), tmp_path / "b", data)
    left, expected = (state(tmp_path / name)["state_dict"] for name in "ab")
    assert all(torch.equal(left[key], value) for key, value in expected.items())
    run(compose([*settings, "nonfinite=skip"]), tmp_path / "a", data)
    assert result_of(tmp_path / "a")["skipped"] == 1


def by_hand(folder, settings, data, accumulate=1):
    """Training as a loop that leaves out spoiled batches, with statistics of the others only."""
    folder.mkdir()
    parts = build(compose(settings), folder, Context(data))
    network, loader = parts.task.network, parts.data.train_dataloader()
    optimizer = torch.optim.SGD(parameter_groups(network), lr=0.1, momentum=0.9, weight_decay=0.01)
    steps = 2 * BATCHES // accumulate
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, steps)
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        for start in range(0, BATCHES, accumulate):
            optimizer.zero_grad()
            good = True
            for x, y in batches[start : start + accumulate]:
                if torch.isfinite(x).all():
                    (F.cross_entropy(network(x), y) / accumulate).backward()
                else:
                    good = False
            if good:
                optimizer.step()
            schedule.step()
    return network.state_dict()


LOOP = ["optimizer.lr=0.1", "optimizer.nesterov=false", "optimizer.weight_decay=0.01", "scheduler.pct_start=0.3"]
LOOP += ["nonfinite=skip"]


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")  # the loop's first batch is bad
@pytest.mark.parametrize(
    ("overrides", "accumulate"),
    [
        ([], 1),
        (["steps_per_execution=4"], 1),
        pytest.param(["steps_per_execution=4", "compile=true"], 1, marks=pytest.mark.slow),
        (["trainer.accumulate_grad_batches=2"], 2),
    ],
    ids=["one step", "many steps", "one graph", "accumulated"],
)
def test_skip_ends_on_the_weights_of_a_loop_without_the_batch(tmp_path, overrides, accumulate):
    expected = by_hand(tmp_path / "loop", [*SETTINGS, *LOOP], Table(a_nan), accumulate)
    result = run(compose([*SETTINGS, *LOOP, *overrides]), tmp_path / "run", Table(a_nan))
    saved = state(tmp_path / "run")
    for key, value in expected.items():
        torch.testing.assert_close(saved["state_dict"][f"network.{key}"], value, rtol=0, atol=1e-6)
    assert saved["global_step"] == 2 * BATCHES // accumulate
    assert result_of(tmp_path / "run")["skipped"] == 2 == saved["skipped"]
    assert math.isfinite(result.score)
    log = (tmp_path / "run" / "train.log").read_text()
    assert log.count("1 of 8 batches were skipped; the first: train/loss is nan in epoch") == 2
    rows = (tmp_path / "run" / "metrics.csv").read_text()
    assert "nan" not in rows


# How many batches a step has, and how many processes the run.
PROCESSES = rest_slow(itertools.product((1, 2), (1, 2)), lambda case: case == (1, 1))


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")  # the first batch may be it
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw optimizer.fused=true"])
@pytest.mark.parametrize(("accumulate", "processes"), PROCESSES)
def test_skip_under_mixed_precision(tmp_path, monkeypatch, precision, optimizer, accumulate, processes):
    """With float16 the loss is scaled: the scaler must neither step nor be confused by a batch without a backward.

    Of two processes each has a backward pass, of a loss that is 0, when they leave a batch out.
    """
    training_step = Task.training_step

    def step(task, batch, batch_idx):
        loss = training_step(task, batch, batch_idx)
        return sum(p.sum() for p in task.network.parameters()) * 0 if loss is None else loss

    if processes == 2:
        monkeypatch.setattr(Task, "training_step", step)

    settings = [*SETTINGS, "nonfinite=skip", f"trainer.accumulate_grad_batches={accumulate}"]
    settings += f"optimizer={optimizer}".split()
    settings += ["trainer.precision=bf16-mixed"] if precision == "bf16-mixed" else []
    run(compose(settings), tmp_path, Table(a_nan), [Scaled()] if precision == "16-mixed" else [])
    assert result_of(tmp_path)["skipped"] == 2
    saved = state(tmp_path)
    assert all(torch.isfinite(value).all() for value in saved["state_dict"].values())
    assert saved["state_dict"]["network.bn1.num_batches_tracked"] == 2 * BATCHES - 2
    steps = (2 * BATCHES) // accumulate - 2
    if precision == "16-mixed":
        assert saved["MixedPrecision"]["_growth_tracker"] == steps
    if optimizer == "adamw":
        assert {int(moment["step"]) for moment in saved["optimizer_states"][0]["state"].values()} == {steps}
    moments = [value for moment in saved["optimizer_states"][0]["state"].values() for value in moment.values()]
    assert all(torch.isfinite(value).all() for value in moments if isinstance(value, torch.Tensor))


def test_an_epoch_without_a_good_batch_ends_the_run(tmp_path):
    with pytest.raises(FloatingPointError, match="8 of 8 batches were skipped; the first: .*16 samples hold NaN or"):
        run(compose([*SETTINGS, "nonfinite=skip"]), tmp_path, Table(lambda x, y: x.fill_(math.inf)))
    assert result_of(tmp_path)["status"] == "failed"


def test_a_run_without_such_batches_is_the_same_under_both(tmp_path):
    for policy in ("raise", "skip"):
        run(compose([*SETTINGS, f"nonfinite={policy}"]), tmp_path / policy, Table())
        assert result_of(tmp_path / policy)["skipped"] == 0
    ours, theirs = (state(tmp_path / policy)["state_dict"] for policy in ("raise", "skip"))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("stage", ["val", "test"])
def test_evaluation_names_its_batch(tmp_path, stage):
    with pytest.raises(FloatingPointError, match=f"{stage}/loss is nan in .*1 of the batch's 16 samples hold NaN"):
        run(compose([*SETTINGS, "nonfinite=skip"]), tmp_path, Table(a_nan, stage))


class Branch(Net):
    """A norm whose output the loss never sees."""

    def __init__(self, **parts):
        super().__init__(**parts)
        self.aside = Batch()(5, dims=0)

    def forward(self, x):
        self.aside(x * math.inf if self.training else x)
        return super().forward(x)


@pytest.mark.parametrize("validated", [True, False])
def test_statistics_that_no_loss_shows_end_the_run(tmp_path, validated):
    config = compose([*SETTINGS, *([] if validated else ["trainer.check_val_every_n_epoch=5"])])
    config.model._target_ = "test_nonfinite.Branch"
    with pytest.raises(FloatingPointError, match=r"aside \(BatchNorm1d\) holds NaN or inf in running_mean in epoch 0"):
        run(config, tmp_path, Table())
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


class Overflowing(nn.Module):
    """Overflows in its own forward, before a layer that is not to blame, or in its last layer."""

    def __init__(self, between: bool):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.second = nn.Linear(4, 3)
        self.between = between

    def forward(self, x):
        x = self.first(x)
        return self.second(x * 1e38 * 1e38) if self.between else self.last(self.second(x))


class Exponential(nn.Module):
    def forward(self, x):
        return x.mul_(0).add_(1e9).exp_()  # changes its input


def test_the_first_layer_is_named_and_looking_leaves_no_trace():
    x, target = torch.randn(6, 5), torch.tensor([0, 1, 2, 0, 1, 2])
    network = Overflowing(between=True)
    assert explain(network, x, target).startswith("the network (Overflowing) is the first layer")
    network.between, network.last = False, Exponential()
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())
    guard = Guard(network, "raise", lambda: "epoch 7, step 9")
    guard.begin_epoch()
    guard.remember()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    loss = F.cross_entropy(network(x), target)
    random = torch.get_rng_state()
    with pytest.raises(FloatingPointError, match=r"is nan in epoch 7, step 9: last \(Exponential\) is the first layer"):
        guard.passes(loss, x, target)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert hooks == sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()) == 0
    network.first[0].weight.data[1, 1] = math.inf
    assert explain(network, x, target).startswith("first.0 (Linear) holds NaN or inf in weight, which an earlier step")
    network = nn.Linear(5, 3)
    assert "1 of the batch's 6 samples hold NaN or inf in target" in explain(
        network, x, torch.tensor([0.0] * 5 + [math.inf])
    )
    assert "the network's output is finite" in explain(network, x, target)


class RandomlyNaN(nn.Module):
    """NaN by the throw of a coin, so that only the same random numbers find it again."""

    def forward(self, x):
        return x * math.nan if torch.rand(()) < 0.5 else x


def test_the_same_random_numbers_are_drawn_when_looking():
    network, x, found = nn.Sequential(nn.Linear(2, 2), RandomlyNaN()), torch.randn(3, 2), 0
    guard = Guard(network, "raise", lambda: "")
    guard.begin_epoch()
    for seed in range(20):
        torch.manual_seed(seed)
        guard.remember()
        loss = network(x).sum()
        if not torch.isfinite(loss):
            found += 1
            with pytest.raises(FloatingPointError, match=r"1 \(RandomlyNaN\) is the first layer"):
                guard.passes(loss, x, x)
    assert found > 3


class Assigns(nn.Module):
    """Keeps its statistic by assignment, not in place."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return x


def test_buffers_that_a_layer_assigns_are_put_back_too():
    network = Assigns()
    guard = Guard(network, "skip", lambda: "")
    guard.begin_epoch()
    for value in (1.0, 2.0):
        guard.remember()
        assert guard.passes(network(torch.full((3, 2), value)).sum(), torch.zeros(3, 2), torch.zeros(3))
    good = network.mean.clone()
    guard.remember()
    bad = torch.full((3, 2), math.nan)
    assert not guard.passes(network(bad).sum(), bad, torch.zeros(3))
    assert torch.equal(network.mean, good)


@pytest.mark.slow
def test_a_compiled_network_names_its_layer(tmp_path):
    config = compose([*SETTINGS, "compile=true", "norm=none", "optimizer.lr=1e30", "scheduler=none"])
    with pytest.raises(FloatingPointError, match=r"fc\d \(Linear\)"):
        run(config, tmp_path, Table())


def test_the_search_for_a_learning_rate_ends_where_the_loss_does(tmp_path, monkeypatch):
    forward = Net.forward
    calls = []

    def diverging(self, x):
        calls.append(self.training)
        if sum(calls) > 60:
            self.fc1.weight.data.fill_(math.inf)  # a step too large does that
        return forward(self, x)

    monkeypatch.setattr(Net, "forward", diverging)
    run(compose([*SETTINGS, "action=lr_find"]), tmp_path, Table())
    assert sum(calls) < 65
    assert result_of(tmp_path / "lr_find")["status"] == "finished"
