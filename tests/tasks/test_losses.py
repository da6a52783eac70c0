"""Losses, metrics, loggers and checkpoints by configuration."""

import csv
import json

import pytest
import torch
from helpers.cases import QUICK
from sklearn import metrics as sklearn_metrics
from torch import nn
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from normlab import compose, run
from normlab.errors import ConfigError
from normlab.folder.identity import config_hash
from normlab.runner.build import build
from normlab.tasks.losses import focal, trial_numbers, try_loss

TABLE = [*QUICK, "model=net"]


def task_of(tmp_path, *overrides: str):
    return build(compose([*TABLE, *overrides]), tmp_path).task


def rows(file) -> list[list[str]]:
    return list(csv.reader(file.read_text().splitlines()))


def test_focal_is_that_of_torchvision_in_two_classes():
    """With logits (0, z), the softmax of two classes is the sigmoid of z."""
    torch.manual_seed(0)
    z, target = torch.randn(9) * 3, torch.randint(2, (9,))
    expected = sigmoid_focal_loss(z, target.float(), alpha=-1, gamma=2.0, reduction="mean")
    torch.testing.assert_close(focal(torch.stack([torch.zeros(9), z], 1), target), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_of_shares_is_that_of_each_class_and_its_slope_is_finite(gamma):
    output = torch.tensor([[60.0, -60.0, 0.0], [0.1, 0.2, 0.3]], requires_grad=True)
    classes = torch.tensor([0, 2])
    torch.testing.assert_close(focal(output, F.one_hot(classes, 3), gamma), focal(output, classes, gamma))
    focal(output, classes, gamma).backward()
    assert output.grad is not None
    assert output.grad.isfinite().all()


def test_focal_with_gamma_0_is_cross_entropy():
    output, target = torch.randn(7, 4), torch.arange(7) % 4
    torch.testing.assert_close(focal(output, target, gamma=0.0), F.cross_entropy(output, target))


LOSSES = {
    "data=wine loss=label_smoothing": lambda o, t: F.cross_entropy(o, t, label_smoothing=0.1),
    "data=wine loss=cross_entropy": F.cross_entropy,
    "data=wine loss._target_=torch.nn.functional.multi_margin_loss": F.multi_margin_loss,
    "data=diabetes loss=huber loss.delta=0.5": lambda o, t: F.huber_loss(o, t, delta=0.5),
    "data=diabetes loss=mae": F.l1_loss,
    "data=diabetes loss=mse": F.mse_loss,
}


@pytest.mark.parametrize("line", LOSSES)
def test_the_chosen_loss_is_what_trains(line, tmp_path):
    task = task_of(tmp_path, *line.split())
    if "wine" in line:
        output, target = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
        expected = LOSSES[line](output, target)
    else:
        output, target = torch.randn(5, 1), torch.randn(5, 1) * 50 + 100
        expected = LOSSES[line](output, (target - task.target_mean) / task.target_std)
    torch.testing.assert_close(task.loss(output, target), expected)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("data=wine loss=mse", r"MSELoss cannot take outputs \(4, 3\) and targets \(4,\)"),
        ("data=breast_cancer loss=huber", r"HuberLoss cannot take outputs \(3, 2\)"),
        ("data=diabetes loss=cross_entropy", "CrossEntropyLoss of .* cannot train this task"),
        ("data=diabetes loss=mse +loss.reduction=sum", "grows with the number of samples"),
        ("data=diabetes loss=mse +loss.reduction=none", "gives no single number"),
        ("data=wine loss=focal task.class_weights=balanced", "the weights are those of loss=task"),
        ("model=net data=fake data.mix=mixup loss._target_=torch.nn.MultiMarginLoss", "MultiMarginLoss cannot take"),
        ("data=wine loss=fokal", "no option fokal in loss; did you mean focal"),
        ("data=wine loss=focal loss.gamma=-1", "loss.gamma=-1: expected a number of at least 0"),
    ],
)
def test_a_loss_that_cannot_train_the_task_is_refused(line, message, tmp_path):
    with pytest.raises((ConfigError, ValueError), match=message):
        task_of(tmp_path, *line.split())


@pytest.mark.parametrize("loss", [F.cross_entropy, focal])
def test_losses_of_classes_are_refused_for_numbers_in_any_count_of_columns(loss):
    """They compare columns with each other, so an output that is wrong by the same in each costs the same."""
    for width in range(1, 21):
        target = trial_numbers(width)
        with pytest.raises(ValueError, match="so it cannot train this task"):
            try_loss(loss, target, target + 1, target)


def test_losses_make_runs_apart():
    lines = ([], ["loss=label_smoothing"], ["loss=label_smoothing", "loss.label_smoothing=0.2"], ["loss=focal"])
    assert len({config_hash(compose(line)) for line in lines}) == 4


def test_metrics_of_torchmetrics_are_scikit_learns(tmp_path):
    beta = "{_target_:torchmetrics.classification.MulticlassFBetaScore,beta:2.0}"
    task = task_of(tmp_path, "data=wine", f"task.metrics=[acc,precision,recall,{beta},confusion_matrix]")
    torch.manual_seed(0)
    output, target = torch.randn(40, 3), torch.randint(3, (40,))
    task.val_meter.update(task.loss(output, target), output, target)
    got, predicted = task.val_meter.compute(), output.argmax(1)
    of = {"average": "macro", "zero_division": 0}
    assert got["precision"].item() == pytest.approx(sklearn_metrics.precision_score(target, predicted, **of))
    assert got["recall"].item() == pytest.approx(sklearn_metrics.recall_score(target, predicted, **of))
    assert got["f_beta_score"].item() == pytest.approx(sklearn_metrics.fbeta_score(target, predicted, beta=2, **of))
    assert got["confusion_matrix"].tolist() == sklearn_metrics.confusion_matrix(target, predicted).tolist()
    scalars = {f"train/{name}" for name in ("loss", "acc", "precision", "recall", "f_beta_score")}
    assert {name for name in task.metric_names() if name.startswith("train/")} == scalars


def test_a_table_is_written_beside_the_result(tmp_path):
    overrides = ["model=net", "data=wine", "logger=csv", "callbacks=keep_top", "trainer.max_epochs=5"]
    chosen = ["task.metrics=[acc,confusion_matrix]", "callbacks.keep_top.count=2", "score=val/loss", "score_mode=min"]
    result = run(compose([*overrides, *chosen]), folder=tmp_path)
    assert "test/confusion_matrix" not in result.metrics
    head, *table = rows(tmp_path / "confusion_matrix_test.csv")
    assert head[1:] == [row[0] for row in table]
    counts = torch.tensor([[int(count) for count in row[1:]] for row in table])
    right = counts.trace().item() / json.loads((tmp_path / "result.json").read_text())["samples"]["test"]
    assert right == pytest.approx(result.metrics["test/acc"])
    assert (tmp_path / "csv" / "metrics.csv").is_file()
    assert_keeps_the_best(tmp_path, 2)
    run(compose([*overrides, *chosen, "trainer.max_epochs=8", "extend=true"]), folder=tmp_path)
    assert_keeps_the_best(tmp_path, 2)


def assert_keeps_the_best(folder, count: int) -> None:
    """The checkpoints of the epochs with the least val/loss, each that of its epoch."""
    with (folder / "metrics.csv").open() as lines:
        losses = {int(row["epoch"]): float(row["val/loss"]) for row in csv.DictReader(lines)}
    best = sorted(losses, key=losses.__getitem__)[:count]
    kept = sorted((folder / "checkpoints").glob("epoch_*"))
    assert sorted(f"epoch_{epoch}.ckpt" for epoch in best) == [file.name for file in kept]
    for file in kept:
        assert torch.load(file, weights_only=True)["epoch"] == int(file.stem.removeprefix("epoch_"))


def test_an_unknown_metric_and_one_that_needs_more_are_refused(tmp_path):
    for metrics, message in (
        ("[precison]", "did you mean precision"),
        ("[f_beta_score]", "MulticlassFBetaScore needs beta: write it as"),
        ("[roc]", "roc gives a tuple; expected a number or a table"),
    ):
        with pytest.raises((ConfigError, ValueError), match=message):
            task_of(tmp_path, "data=wine", f"task.metrics={metrics}")


@pytest.mark.parametrize("name", ["pearson_corr_coef", "mean_absolute_percentage_error"])
def test_regression_has_torchmetrics_too(name, quick_run):
    assert f"val/{name}" in quick_run("model=net", "data=diabetes", f"task.metrics=[r2,{name}]").metrics


def test_a_loss_with_weights_of_its_own_is_refused(tmp_path, monkeypatch):
    class Learned(nn.MSELoss):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

    monkeypatch.setattr(nn, "MSELoss", Learned)
    with pytest.raises((ConfigError, ValueError), match="has weights of its own to train"):
        task_of(tmp_path, "data=diabetes", "loss=mse")
