"""Losses and metrics against scikit-learn, parameter groups, schedules, and many steps per execution."""

import csv
import math

import numpy as np
import pytest
import torch
from helpers.cases import QUICK, rest_slow
from lightning import Callback
from sklearn import metrics as sklearn_metrics
from sklearn.utils import class_weight
from torch import nn
from torch.nn import functional as F

from normlab import compose, run
from normlab.errors import ConfigError
from normlab.models.net import Net
from normlab.norms.batch import Batch
from normlab.runner.build import build
from normlab.tasks.classify import Classify
from normlab.tasks.meter import Meter
from normlab.tasks.optimizers import parameter_groups
from normlab.tasks.regress import Regress
from normlab.tasks.schedulers import constant, cosine

SGD = lambda parameters: torch.optim.SGD(parameters, lr=0.1)
BATCHES = [7, 7, 3]


def fed(task, outputs, targets) -> dict[str, float]:
    meter: Meter = task.val_meter
    for output, target in zip(outputs.split(BATCHES), targets.split(BATCHES), strict=True):
        meter.update(task.loss(output, target), output, target)
    return {name: value.item() for name, value in meter.compute().items()}


@pytest.mark.parametrize("scale", [1.0, 0.01])  # small outputs all look like probabilities
def test_classification_metrics_are_scikit_learns(scale):
    torch.manual_seed(0)
    outputs, targets = torch.rand(17, 3) * scale, torch.arange(17) % 3
    task = Classify(nn.Identity(), SGD, constant, num_classes=3, metrics=["acc", "f1", "auroc"])
    got = fed(task, outputs, targets)
    predicted, probabilities = outputs.argmax(1), outputs.double().softmax(1)
    assert got["loss"] == pytest.approx(sklearn_metrics.log_loss(targets, probabilities), rel=1e-5)
    assert got["acc"] == pytest.approx(sklearn_metrics.accuracy_score(targets, predicted))
    assert got["f1"] == pytest.approx(sklearn_metrics.f1_score(targets, predicted, average="macro"))
    expected = sklearn_metrics.roc_auc_score(targets, probabilities, multi_class="ovr", average="macro")
    assert got["auroc"] == pytest.approx(expected, rel=1e-5)


def test_shares_of_classes_are_a_loss_of_each():
    """What mixing gives: the loss is linear in the shares, and metrics take the larger one."""
    outputs, shares = torch.randn(5, 3), torch.tensor([0.7, 0.3, 0.0]).expand(5, 3)
    task = Classify(nn.Identity(), SGD, constant, num_classes=3)
    first, second = (F.cross_entropy(outputs, torch.full((5,), c)) for c in (0, 1))
    torch.testing.assert_close(task.loss(outputs, shares), 0.7 * first + 0.3 * second)
    assert task.label(shares).tolist() == [0] * 5


def test_balanced_class_weights_are_scikit_learns(tmp_path):
    parts = build(compose([*QUICK, "model=net", "data=breast_cancer", "task.class_weights=balanced"]), tmp_path)
    outputs, targets = torch.randn(7, 2), torch.tensor([0, 1, 1, 1, 0, 1, 1])
    everything = parts.data.splits["train"][1].numpy()
    weights = class_weight.compute_class_weight("balanced", classes=np.array([0, 1]), y=everything)
    each = F.cross_entropy(outputs, targets, reduction="none").double() * torch.from_numpy(weights)[targets]
    torch.testing.assert_close(parts.task.loss(outputs, targets).double(), each.mean(), rtol=1e-6, atol=0)
    quick = compose([*QUICK, "model=net", "data=diabetes", "task.class_weights=balanced"])
    with pytest.raises(ConfigError, match="task.class_weights=balanced: this data has no classes"):
        build(quick, tmp_path)


@pytest.mark.parametrize("width", [1, 2])
def test_regression_metrics_are_scikit_learns_in_the_targets_units(width):
    torch.manual_seed(0)
    outputs, targets = torch.randn(17, width), torch.randn(17, width) * 20 + 100
    mean, std = torch.full((width,), 90.0), torch.full((width,), 15.0)
    task = Regress(nn.Identity(), SGD, constant, target_mean=mean, target_std=std)
    got, predicted = fed(task, outputs, targets), outputs * 15 + 90
    assert got["mse"] == pytest.approx(sklearn_metrics.mean_squared_error(targets, predicted), rel=1e-5)
    assert got["mae"] == pytest.approx(sklearn_metrics.mean_absolute_error(targets, predicted), rel=1e-5)
    assert got["r2"] == pytest.approx(sklearn_metrics.r2_score(targets, predicted), rel=1e-4)
    assert got["loss"] == pytest.approx(np.mean(((targets - 90) / 15 - outputs).numpy() ** 2), rel=1e-5)


def test_meters_forget_at_reset_and_hand_over_large_outputs_at_once():
    task = Classify(nn.Identity(), SGD, constant, num_classes=2)
    task.val_meter.update(torch.tensor(9.0), torch.rand(4, 2), torch.zeros(4, dtype=torch.long))
    task.val_meter.reset()
    right = F.one_hot(torch.arange(200_000) % 2).float()
    task.val_meter.update(torch.tensor(1.0), right, torch.arange(200_000) % 2)
    assert not task.val_meter.held
    assert task.val_meter.compute()["acc"] == 1
    assert task.val_meter.compute()["loss"] == 1


def test_an_unknown_metric_is_refused(quick_run):
    with pytest.raises(
        ConfigError, match="task.metrics: r2 is no metric of this task.*metrics: acc, f1, auroc, and torch"
    ):
        quick_run("task.metrics=[r2]")


def test_norm_parameters_and_biases_have_no_weight_decay():
    network = Net(Batch(), (10,), 10)
    decayed, plain = parameter_groups(network)
    assert {id(p) for p in decayed["params"]} == {id(network.fc1.weight), id(network.fc2.weight)}
    expected = {id(p) for p in (network.fc1.bias, network.fc2.bias, network.bn1.weight, network.bn1.bias)}
    assert {id(p) for p in plain["params"]} == expected
    assert plain["weight_decay"] == 0


def test_parameter_groups_leave_out_frozen_and_doubled_parameters():
    shared = nn.Linear(4, 4)
    shared.bias.requires_grad_(False)
    (group,) = parameter_groups(nn.Sequential(shared, shared))
    assert [id(p) for p in group["params"]] == [id(shared.weight)]


def test_cosine_rises_and_falls():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = cosine(optimizer, total_steps=100, warmup=0.2)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(2 / 21)
    assert max(rates) == pytest.approx(2.0) == rates[20]
    assert rates[60] == pytest.approx(2 * 0.5 * (1 + math.cos(math.pi * 0.5)))
    assert rates[-1] < 0.01
    assert constant(optimizer) is None


WINE = ["model=net", "data=wine", "data.batch_size=8", "trainer.max_epochs=3", "logger=none"]


def weights_and_steps(tmp_path, *overrides: str):
    folder = tmp_path / "_".join(overrides).replace("/", "")
    result = run(compose([*WINE, *overrides]), folder=folder)
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    rows = (folder / "metrics.csv").read_text()
    return last["state_dict"], last["global_step"], rows, result


MANY_STEPS = [
    [],
    ["scheduler=cosine", "optimizer=adamw"],
    ["trainer.limit_train_batches=5"],
    ["trainer.limit_train_batches=0.5"],
    ["trainer.max_steps=20"],
    ["trainer.precision=bf16-mixed"],
    ["trainer.precision=64-true", "scheduler=none"],
    ["model=my_model", "data=digits", "data.size=8", "data.batch_size=200", "trainer.precision=bf16-mixed"],
]


@pytest.mark.parametrize("overrides", rest_slow(MANY_STEPS, lambda case: case[0] == MANY_STEPS[0]), ids=" ".join)
def test_many_steps_per_execution_end_on_the_same_bits(tmp_path, overrides):
    one, one_step, one_rows, _ = weights_and_steps(tmp_path, *overrides)
    many, many_step, many_rows, _ = weights_and_steps(tmp_path, *overrides, "steps_per_execution=4")
    assert one.keys() == many.keys()
    for key in one:
        assert torch.equal(one[key], many[key]), key
    assert one_step == many_step
    assert one_rows == many_rows


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["channels_last=true", "channels_last=false"])
@pytest.mark.parametrize("plainly", [["optimizer=adamw", "optimizer.fused=false"], ["optimizer.fused=false"]])
def test_the_fused_optimizer_is_the_plain_one(tmp_path, plainly, layout):
    """torch's fused kernel takes parameter and gradient for laid out alike, and says nothing where they are not."""
    typed = ["model=resnet", "data=digits", "data.size=8", "data.batch_size=64", "trainer.limit_train_batches=5"]
    typed += ["trainer.precision=64-true", layout, *plainly[:-1]]
    fused, *_ = weights_and_steps(tmp_path, *typed)
    plain, *_ = weights_and_steps(tmp_path, *typed, plainly[-1])
    for key, value in plain.items():
        torch.testing.assert_close(fused[key], value, rtol=1e-9, atol=1e-12)


class ActsOnEveryBatch(Callback):
    def on_train_batch_end(self, *_):
        raise AssertionError


def test_callbacks_for_each_batch_are_refused_with_many_steps(tmp_path):
    config = compose([*WINE, "steps_per_execution=4"])
    config.callbacks = {"mine": {"_target_": "test_tasks.ActsOnEveryBatch"}}
    with pytest.raises(
        ConfigError, match="ActsOnEveryBatch acts in on_train_batch_end; with steps_per_execution=4 use 1"
    ):
        run(config, folder=tmp_path)


@pytest.mark.parametrize(("score", "mode"), [("val/loss", min), ("val/f1", max)])
def test_the_best_epoch_is_that_of_the_score_in_its_own_direction(tmp_path, score, mode):
    result = run(compose([*WINE, f"score={score}", "trainer.max_epochs=6"]), folder=tmp_path)
    with (tmp_path / "metrics.csv").open() as lines:
        values = [float(row[score]) for row in csv.DictReader(lines)]
    assert result.score == mode(values)
    assert result.metrics[score] == result.score


@pytest.mark.parametrize(("data", "directions"), [("wine", "max max"), ("diabetes", "min min max")])
def test_directions(tmp_path, data, directions):
    task = build(compose([*QUICK, "model=net", f"data={data}"]), tmp_path).task
    names = [name for name in task.metric_names() if name.startswith("val/") and name != "val/loss"]
    assert [task.direction(name) for name in names] == directions.split()
    assert task.direction("val/loss") == "min"


def test_a_score_that_is_not_measured_is_refused(quick_run):
    with pytest.raises(ConfigError, match="score=train/acc: expected one of val/loss, val/acc, val/f1"):
        quick_run("score=train/acc")


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    with pytest.raises(FloatingPointError, match=r"train/loss is .* in epoch 0.*optimizer.lr"):
        run(compose([*WINE, "norm=none", "optimizer.lr=1e30", "scheduler=none"]), folder=tmp_path / "run")


def test_predictions_survive_a_float16_network(tmp_path):
    parts = build(compose([*QUICK, "model=net", "data=wine", "trainer.precision=bf16-true"]), tmp_path)
    output = torch.randn(4, 3, dtype=torch.bfloat16)
    parts.task.network = nn.Identity()
    _, loss = parts.task._step(output, torch.tensor([0, 1, 2, 0]))
    assert loss.dtype == torch.float32
