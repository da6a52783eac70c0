"""The figures of a run's page, against scikit-learn, SciPy, and how often an interval holds what it is of."""

import numpy as np
import pytest
import torch
from helpers.cases import options
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, log_loss, mean_absolute_error, precision_recall_fscore_support, r2_score
from torch import nn

from normlab import compose
from normlab.config.instantiate import make
from normlab.report.single import calibration, intervals, layers
from normlab.report.single.answers import VARIANCE
from normlab.report.single.classes import class_scores, confusion, mistakes
from normlab.report.single.residuals import number_score, r2
from normlab.report.single.watch import losses


@pytest.mark.parametrize(("hits", "count"), [(0, 1), (1, 1), (0, 30), (30, 30), (7, 30), (29, 30), (4999, 10000)])
def test_wilsons_interval_is_scipys(hits, count):
    own, theirs = intervals.share(hits, count), stats.binomtest(hits, count).proportion_ci(method="wilson")
    assert (own.value, own.low, own.high) == pytest.approx((hits / count, theirs.low, theirs.high), abs=1e-12)


def test_wilsons_interval_holds_the_true_share_in_95_of_100_test_parts():
    """Exactly, over all that may be counted; for single shares it is a little more or less, as for any interval."""
    for count in (20, 100, 400):
        bounds = [intervals.share(hits, count) for hits in range(count + 1)]
        low, high = (np.array([getattr(bound, end) for bound in bounds]) for end in ("low", "high"))
        shares = np.linspace(0.02, 0.98, 97)
        chance = [stats.binom.pmf(range(count + 1), count, p) @ ((low <= p) & (p <= high)) for p in shares]
        assert np.mean(chance) == pytest.approx(0.95, abs=0.012)
        assert min(chance) > 0.83


def test_the_interval_of_f1_holds_the_true_one():
    random, held = np.random.default_rng(1), 0
    true, draws = 2 * 0.3 / (2 * 0.3 + 0.1 + 0.05), 4000
    for hits, wrong, missed, _ in random.multinomial(80, [0.3, 0.1, 0.05, 0.55], size=draws).tolist():
        bound = intervals.f1(hits, hits + wrong, hits + missed)
        held += bound.low <= true <= bound.high
    assert held / draws == pytest.approx(0.95, abs=0.015)


def test_the_interval_of_labels_allows_for_labels_that_go_together():
    """Ten labels of a sample that are right or wrong together are worth one."""
    random, held, draws = np.random.default_rng(2), 0, 2000
    for _ in range(draws):
        right = np.repeat(random.random((100, 1)) < 0.8, 10, axis=1)
        bound = intervals.mean_of_shares(right.mean(1))
        held += bound.low <= 0.8 <= bound.high
    assert held / draws == pytest.approx(0.95, abs=0.02)
    assert intervals.mean_of_shares(np.ones(40)).low == pytest.approx(intervals.share(40, 40).low)


def test_the_interval_of_r2_holds_the_true_one():
    random, held, draws = np.random.default_rng(3), 0, 2000
    for _ in range(draws):
        said = random.normal(0, 1, (90, 1))
        truth = said + random.normal(0, 1, (90, 1))  # 1 − 1 / 2
        bound = r2(truth, said)
        held += bound.low <= 0.5 <= bound.high
    assert held / draws == pytest.approx(0.95, abs=0.025)


@pytest.mark.parametrize("columns", [1, 3])
def test_r2_is_scikit_learns(columns):
    random = np.random.default_rng(4)
    truth = random.normal(5, 2, (50, columns))
    said = truth + random.normal(0, 1, truth.shape)
    bound = r2(truth, said)
    assert bound.value == pytest.approx(r2_score(truth, said))
    assert bound.low < bound.value < bound.high < 1
    assert number_score(truth[:, 0], said[:, 0]).mae.value == pytest.approx(
        mean_absolute_error(truth[:, 0], said[:, 0])
    )


def test_a_target_that_does_not_vary_has_no_r2():
    assert np.isnan(r2(np.ones((5, 1)), np.zeros((5, 1))).value)


def test_the_scores_of_classes_are_scikit_learns():
    random = np.random.default_rng(5)
    truth, said = random.integers(0, 4, 200), random.integers(0, 3, 200)  # the last class is never predicted
    matrix = confusion(truth, said, 4)
    assert matrix.tolist() == confusion_matrix(truth, said, labels=range(4)).tolist()
    scores = class_scores(matrix, "abcd")
    theirs = precision_recall_fscore_support(truth, said, labels=range(4), zero_division=np.nan)
    for kind, values in zip(("precision", "recall", "f1"), theirs, strict=False):
        own = [getattr(score, kind).value for score in scores]
        assert own == pytest.approx([0 if kind == "f1" and np.isnan(v) else v for v in values], nan_ok=True)
    assert [score.there for score in scores] == theirs[3].tolist()
    first = mistakes(matrix, "abcd", 2)[0]
    assert first[2] == max(matrix[i, j] for i in range(4) for j in range(4) if i != j)


def test_the_bins_of_calibration_are_scikit_learns():
    random = np.random.default_rng(6)
    confidence = random.beta(5, 2, 300)
    right = random.random(300) < confidence
    own = calibration.calibrate(confidence, right)
    shares, means = calibration_curve(right, confidence, n_bins=10, strategy="quantile")
    assert [b.right.value for b in own.bins] == pytest.approx(shares.tolist())
    assert [b.confidence for b in own.bins] == pytest.approx(means.tolist())
    weights = np.array([b.count for b in own.bins]) / 300
    assert own.error == pytest.approx(weights @ np.abs(shares - means))


def test_calibrated_probabilities_are_within_noise_in_95_of_100_test_parts_and_others_are_not():
    random, rounds = np.random.default_rng(7), 300
    calm = over = 0
    for _ in range(rounds):
        confidence = random.beta(5, 2, 100)
        drawn = random.random(100)
        calm += calibration.calibrate(confidence, drawn < confidence).within_noise
        over += calibration.calibrate(confidence, drawn < confidence - 0.2).within_noise
    assert calm / rounds == pytest.approx(0.95, abs=0.035)
    assert over / rounds < 0.2


@pytest.mark.parametrize("option", options("norm"))
def test_the_layers_of_every_norm_are_told(option):
    norm = make(compose([f"norm={option}"]), "norm")
    network = nn.Sequential(norm.conv2d(3, 8, kernel_size=3), norm(8, dims=2))
    told, weights = layers.of_network(network)
    assert sum(each.count for each in weights) == sum(parameter.numel() for parameter in network.parameters())
    for layer in told:
        assert layer.channels >= 8 or layer.quantities == {}
        assert all(np.isfinite(spread.mean) for spread in layer.quantities.values())
    saved = {f"network.{name}": value for name, value in network.state_dict().items()}
    by_names = [layer for layer in layers.of_checkpoint(saved)[0] if VARIANCE in layer.quantities]
    assert [each.quantities[VARIANCE] for each in by_names] == [
        each.quantities[VARIANCE] for each in told if VARIANCE in each.quantities
    ]


def test_dead_channels_are_counted():
    layer = nn.BatchNorm2d(10)
    with torch.no_grad():
        layer.weight[:4] = torch.tensor([0.0, -0.009, 0.009, -0.011])
        layer.running_var[:2] = torch.tensor([0.0, 1e-6])
    ((told,), _) = layers.of_network(nn.Sequential(layer))
    assert (told.faint, told.constant, told.channels) == (3, 2, 10)
    variance = layer.running_var.double()
    spread = told.quantities[VARIANCE]
    assert (spread.lowest, spread.highest) == (variance.min(), variance.max())
    assert (spread.mean, spread.sd) == pytest.approx((float(variance.mean()), float(variance.std(correction=0))))


def test_losses_are_torchs_and_scikit_learns():
    random = torch.Generator().manual_seed(8)
    logits, target = torch.randn(20, 3, generator=random), torch.randint(3, (20,), generator=random)
    own = losses(logits.softmax(1), target, None)
    torch.testing.assert_close(own.float(), torch.nn.functional.cross_entropy(logits, target, reduction="none"))
    probabilities = logits.double().softmax(1).numpy()
    assert calibration.log_loss(probabilities, target.numpy()) == pytest.approx(log_loss(target, probabilities))
    labels = torch.randint(2, (20, 3), generator=random)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none").mean(1)
    torch.testing.assert_close(losses(logits.sigmoid(), labels, None).float(), expected)
    std = torch.tensor([1.0, 2.0, 4.0])
    torch.testing.assert_close(losses(logits, logits + std, std).float(), torch.ones(20))
    assert losses(torch.tensor([[0.0, 1.0]]), torch.tensor([0]), None).isfinite().all()
