"""What is measured of a finished run, against plain torch on the run's network and data."""

import copy
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from helpers.cases import ROOT
from torch import nn
from torch.nn import functional as F

from normlab import compose, run
from normlab.data.common.batches import EpochOrder
from normlab.errors import ConfigError, SweepError
from normlab.folder.measures import MEASURES, read_measured
from normlab.runner.build import Context, build
from normlab.runner.measures import measure, measure_sweep

DIGITS = ["data=digits", "model=mlp", "model.hidden=[16,12]", "logger=none", "trainer=cpu", "data.batch_size=50"]
DIGITS += ["trainer.max_epochs=8", "data.subset=300"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with its network at the start and at its best, and its data."""
    folder = tmp_path_factory.mktemp("measured") / "run"
    config = compose(DIGITS)
    run(config, folder=folder)
    parts = build(config, folder, Context(shares_data=True))
    start = copy.deepcopy(parts.task.network)
    parts.task.load_state_dict(torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"])
    assert parts.data.transform() is None, "samples are given to the network as they lie in the splits"
    result = json.loads((folder / "result.json").read_text())
    return SimpleNamespace(
        folder=folder, config=config, start=start, best=parts.task.network.eval(), data=parts.data, result=result
    )


def right(network, x, y):
    with torch.no_grad():
        return (network(x).argmax(1) == y).double().mean().item()


def plain_batches(finished):
    x, y = finished.data.splits["train"]
    return [(x[index], y[index]) for index in EpochOrder(len(y), finished.config.seed).permutation().split(50)]


def test_each_measure_is_a_file_of_its_own():
    folder = ROOT / "src/normlab/runner/measures"
    assert {file.stem for file in folder.glob("*.py")} == {*MEASURES, "__init__"}


def test_accuracy_is_that_of_the_test(finished):
    x, y = finished.data.splits["test"]
    assert measure(finished.folder, ["accuracy"])["accuracy"] == pytest.approx(right(finished.best, x, y))


def test_early_is_the_mean_of_the_first_quarter_of_the_epochs(finished, tmp_path):
    rows = (finished.folder / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("val/acc")
    values = [float(row.split(",")[column]) for row in rows[1:]]
    assert measure(finished.folder, ["early"])["early"] == pytest.approx((values[0] + values[1]) / 2)
    short = shutil.copytree(finished.folder, tmp_path / "run")
    (short / "metrics.csv").write_text("\n".join(rows[:4]) + "\n")
    assert measure(short, ["early"])["early"] == pytest.approx(values[0])


def test_accuracy_and_early_import_no_torch(finished):
    script = "import sys; from pathlib import Path; from normlab.runner.measures import measure; "
    script += f"measure(Path({str(finished.folder)!r}), ['accuracy', 'early']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_overfitting_is_training_less_test_accuracy(finished):
    train, test = (right(finished.best, *finished.data.splits[part]) for part in ("train", "test"))
    assert train != test
    assert measure(finished.folder, ["overfitting"])["overfitting"] == pytest.approx(train - test)


def test_shift_is_what_three_changes_of_the_input_cost(finished):
    x, y = finished.data.splits["test"]
    whole, dim, bright = (right(finished.best, each, y) for each in (x, 0.3 * x, x + 1))
    noisy = [right(finished.best, x + torch.randn_like(x), y) for _ in range(30)]
    shift = measure(finished.folder, ["shift"])["shift"]
    assert measure(finished.folder, ["shift"])["shift"] == shift
    of_noise = 3 * (whole - shift) - dim - bright
    assert min(noisy) - 0.01 <= of_noise <= max(noisy) + 0.01


def test_mode_gap_is_what_batch_statistics_of_training_gain(finished):
    network = copy.deepcopy(finished.best)
    batches = plain_batches(finished)
    in_evaluation = right(network, *finished.data.splits["train"])
    in_training = sum(right(network.train(), x, y) * len(x) for x, y in batches) / sum(len(x) for x, _ in batches)
    assert in_training != in_evaluation
    assert measure(finished.folder, ["mode_gap"])["mode_gap"] == pytest.approx(in_training - in_evaluation)


def test_precise_gain_is_what_statistics_of_all_layer_inputs_gain(finished):
    state = torch.load(finished.folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    last = copy.deepcopy(finished.best)
    last.load_state_dict({key.removeprefix("network."): v for key, v in state.items() if key.startswith("network.")})
    precise, seen = copy.deepcopy(last).train(), {}
    norms = [module for module in precise.modules() if isinstance(module, nn.BatchNorm1d)]
    assert len(norms) == 2
    hooks = [n.register_forward_pre_hook(lambda n, args: seen.setdefault(n, []).append(args[0])) for n in norms]
    with torch.no_grad():
        for x, _ in plain_batches(finished):
            precise(x)
    for norm, hook in zip(norms, hooks, strict=True):
        hook.remove()
        norm.running_mean, norm.running_var = torch.cat(seen[norm]).mean(0), torch.cat(seen[norm]).var(0)
    with_precise, own = (right(network, *finished.data.splits["test"]) for network in (precise.eval(), last))
    assert with_precise != own
    assert measure(finished.folder, ["mode_gap", "precise_gain"])["precise_gain"] == pytest.approx(with_precise - own)


def test_a_network_without_running_statistics_gains_nothing(tmp_path):
    run(compose([*DIGITS, "norm=group", "norm.num_groups=4", "trainer.max_epochs=1"]), folder=tmp_path / "run")
    assert measure(tmp_path / "run", ["precise_gain"]) == {"precise_gain": 0.0}


def test_gradient_imbalance_is_that_of_the_runs_initial_weights(finished):
    network = copy.deepcopy(finished.start).train()
    imbalances = []
    for x, y in [*finished.data.train_dataloader()][:5]:
        network.zero_grad()
        F.cross_entropy(network(x), y).backward()
        first, last = (layer.weight.grad.norm() for layer in (network.hidden[0], network.fc))
        imbalances.append((first / last).log10().abs())
    expected = torch.stack(imbalances).mean().item()
    assert expected > 0.01
    assert measure(finished.folder, ["gradient_imbalance"])["gradient_imbalance"] == pytest.approx(expected, rel=1e-4)


def test_covariate_shift_is_santurkars_definition(finished):
    network, lr = copy.deepcopy(finished.start).train(), finished.config.optimizer.lr
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    names = [name for name, _ in network.named_parameters()]
    ratios = []
    for x, y in finished.data.train_dataloader():
        before = copy.deepcopy(network)
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
        after = dict(network.named_parameters())
        for layer in ("hidden.3.weight", "fc.weight"):
            mixed = copy.deepcopy(before)
            for name in names[: names.index(layer)]:
                mixed.get_parameter(name).data.copy_(after[name])
            F.cross_entropy(mixed(x), y).backward()
            gradient, other = after[layer].grad, mixed.get_parameter(layer).grad
            ratios.append(((gradient - other).norm() / gradient.norm()).item())
    assert len(ratios) < 40, "an epoch is shorter than 20 steps"
    expected = sum(ratios) / len(ratios)
    assert measure(finished.folder, ["covariate_shift"])["covariate_shift"] == pytest.approx(expected, rel=1e-3)


def test_what_callbacks_do_to_the_training_is_measured_too(tmp_path):
    changes = ["callbacks=[initial_scale,noisy_norms,dropout]", "callbacks.initial_scale.factor=1e-30"]
    run(compose([*DIGITS, *changes, "norm=group", "trainer.max_epochs=1"]), folder=tmp_path / "run")
    state = torch.get_rng_state()
    values = measure(tmp_path / "run", [*MEASURES])
    assert values["gradient_imbalance"] == 10, "the gradient of the first weight is zero"
    assert measure(tmp_path / "run", [*MEASURES]) == values
    assert torch.equal(torch.get_rng_state(), state)


def test_measures_of_a_sweep_are_written_once_for_a_configuration(finished, tmp_path):
    for number in range(3):
        shutil.copytree(finished.folder, tmp_path / f"{number}")
    unfinished = json.loads((tmp_path / "1" / "result.json").read_text()) | {"status": "running"}
    (tmp_path / "1" / "result.json").write_text(json.dumps(unfinished))
    of_another = {"config_hash": "of another", "values": {"early": 3.0}}
    (tmp_path / "2" / "measured.json").write_text(json.dumps(of_another))
    measure_sweep(tmp_path, {number: ["early"] for number in range(4)})
    values = measure(finished.folder, ["early"])
    written = json.loads((tmp_path / "0" / "measured.json").read_text())
    assert written == {"config_hash": finished.result["config_hash"], "values": values}
    assert read_measured(tmp_path / "2") == values
    assert not (tmp_path / "1" / "measured.json").exists()
    (tmp_path / "0" / "measured.json").write_text(json.dumps(written | {"values": {"early": 0.5}}))
    measure_sweep(tmp_path, {0: ["early", "accuracy"]})
    assert read_measured(tmp_path / "0") == {"early": 0.5} | measure(finished.folder, ["accuracy"])


def test_a_run_that_cannot_be_measured_is_told_when_the_others_are(finished, tmp_path):
    for number in range(2):
        shutil.copytree(finished.folder, tmp_path / f"{number}")
    (tmp_path / "0" / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(SweepError, match="could not be measured: .*0 has no checkpoint best"):
        measure_sweep(tmp_path, {0: ["mode_gap"], 1: ["mode_gap"]})
    assert "mode_gap" in read_measured(tmp_path / "1")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"config_hash": "", "values": {"early": null}}'])
def test_a_damaged_file_holds_nothing(finished, tmp_path, content):
    shutil.copy(finished.folder / "result.json", tmp_path)
    (tmp_path / "measured.json").write_text(content.replace('""', f'"{finished.result["config_hash"]}"'))
    assert read_measured(tmp_path) == {}


@pytest.mark.parametrize(
    ("key", "other", "name", "message"),
    [
        ("test: true", "test: false", "shift", "left the test part alone"),
        ("- best\n", "", "mode_gap", r"needs .*best.ckpt, which the run did not keep \(keep=\[last\]\)"),
        ("  devices: 1", "  devices: 2", "covariate_shift", "was trained by several processes"),
        ("init: null", "init: x.pth", "gradient_imbalance", "began with init=x.pth"),
    ],
)
def test_refusals(finished, tmp_path, key, other, name, message):
    """Runs whose configuration differs in one key."""
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    written = (folder / "config.yaml").read_text()
    assert key in written
    (folder / "config.yaml").write_text(written.replace(key, other, 1))
    if key == "- best\n":
        (folder / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(ConfigError, match=message):
        measure(folder, [name])


def test_a_run_without_classes_has_gradients_and_no_accuracy(tmp_path):
    run(compose([*DIGITS, "data=diabetes", "data.subset=1.0", "trainer.max_epochs=1"]), folder=tmp_path / "run")
    assert measure(tmp_path / "run", ["covariate_shift"])["covariate_shift"] > 0
    with pytest.raises(ConfigError, match="has no test/acc, which takes classes"):
        measure(tmp_path / "run", ["accuracy"])
    with pytest.raises(ConfigError, match="has no classes"):
        measure(tmp_path / "run", ["mode_gap"])


def test_a_run_that_has_not_finished_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is measured when it has finished; it is not there"):
        measure(tmp_path, ["accuracy"])
