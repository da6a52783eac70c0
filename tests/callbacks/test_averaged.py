"""Averaged weights against averages by hand, with the statistics of their own; a run that goes on ends the same."""

import itertools

import pytest
import torch
from helpers.asking import assert_goes_on
from helpers.cases import rest_slow
from helpers.folders import result_of, rows_of, state, weights
from helpers.precise import assert_precise
from lightning import Callback
from lightning.pytorch.callbacks import StochasticWeightAveraging
from torch.nn import functional as F

from normlab import compose, run
from normlab.data.wine import Wine
from normlab.errors import ConfigError
from normlab.runner.build import build

WINE = ["model=net", "data=wine", "logger=none", "trainer=cpu", "trainer.max_epochs=4", "data.batch_size=20"]
AVERAGES = {
    "ema": ["callbacks=ema", "callbacks.ema.decay=0.6", "callbacks.ema.in_order=true"],
    "swa": ["callbacks=swa", "callbacks.swa.start=0.5", "callbacks.swa.in_order=true", "scheduler=none"],
}
LOOKAHEAD = ["callbacks=lookahead", "callbacks.lookahead.power=1", "callbacks.lookahead.in_order=true"]
RESUMED = {**AVERAGES, "lookahead": LOOKAHEAD}


class Notes(Callback):
    """Notes the weights after each step, and those at the ends of epochs."""

    def __init__(self):
        self.steps, self.epochs = [], []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.steps.append([parameter.detach().double() for parameter in pl_module.parameters()])
        self.epochs += [self.steps[-1]] if trainer.is_last_batch else []


def by_hand(kind: str, notes: Notes) -> list[torch.Tensor]:
    if kind == "swa":
        return [torch.stack(values).mean(0) for values in zip(*notes.epochs[2:], strict=True)]
    average = notes.steps[0]
    for n, step in enumerate(notes.steps[1:], start=1):
        decay = min(0.6, (1 + n) / (10 + n))  # reached after 13 of 24 steps
        average = [decay * old + (1 - decay) * new for old, new in zip(average, step, strict=True)]
    return average


@pytest.mark.parametrize("kind", rest_slow(AVERAGES, lambda case: case[0] == "swa"))
def test_checkpoints_hold_the_average_and_its_own_statistics(tmp_path, kind):
    overrides, notes = [*WINE, *AVERAGES[kind]], Notes()
    run(compose(overrides), folder=tmp_path / "run", callbacks=[notes])
    parts = build(compose(overrides), tmp_path / "run")
    parts.task.load_state_dict(weights(tmp_path / "run"))
    for parameter, wanted in zip(parts.task.parameters(), by_hand(kind, notes), strict=True):
        torch.testing.assert_close(parameter.double(), wanted, rtol=1e-4, atol=1e-6)
    assert_precise(tmp_path / "run", overrides)


def test_the_average_of_a_short_training_is_a_trained_network(tmp_path):
    """Of 24 steps an average over the last thousand would be the initial weights."""
    result = run(compose([*WINE, "callbacks=ema", "trainer.max_epochs=6"]), folder=tmp_path / "run")
    assert result.metrics["test/acc"] > 0.9


@pytest.mark.parametrize("kind", rest_slow(AVERAGES, lambda case: case[0] == "ema"))
def test_training_goes_its_way_and_the_average_is_what_is_validated(tmp_path, monkeypatch, kind):
    overrides = [*WINE, *AVERAGES[kind]]
    monkeypatch.chdir(tmp_path)
    run(compose([*overrides, "name=run"]))
    plain = [each for each in overrides if not each.startswith("callbacks")]
    run(compose(plain), folder=tmp_path / "plain")
    trained = state(tmp_path / "outputs" / "run")["current_model_state"]
    assert all(torch.equal(values, trained[name]) for name, values in weights(tmp_path / "plain").items())
    again = run(compose(["action=validate", "ckpt=last", "name=run"]))
    last = rows_of(tmp_path / "outputs" / "run")[-1]
    assert again.metrics["val/loss"] == pytest.approx(float(last["val/loss"]), rel=1e-5)


MOMENTS = [("on_train_batch_start", 9), ("on_validation_batch_start", 3), ("on_train_batch_end", 21)]


@pytest.mark.parametrize(
    ("kind", "moment"),
    rest_slow(itertools.product(RESUMED, MOMENTS), set(zip(RESUMED, MOMENTS, strict=True)).__contains__),
    ids=str,
)
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(tmp_path, kind, moment):
    assert_goes_on(tmp_path, [*WINE, *RESUMED[kind]], moment)


def lookahead_by_hand(folder, overrides, accumulate, share):
    """Algorithm 1 of Zhang et al. 2019 as a loop, with slow weights that begin after five steps: slow and fast ones.

    share: of the slow weights in the new ones, by the share of the run that is over.
    """
    parts = build(compose(overrides), folder)
    network, loader = parts.task.network, parts.data.train_dataloader()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    slow, steps = None, 4 * -(-len(loader) // accumulate)
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        for number, first in enumerate(range(0, len(batches), accumulate)):
            together = batches[first : first + accumulate]
            optimizer.zero_grad()
            if all(torch.isfinite(x).all() for x, _ in together):
                for x, y in together:
                    (F.cross_entropy(network(x), y) / accumulate).backward()
                optimizer.step()
            step = epoch * steps // 4 + number + 1
            if step % 5 == 0:
                fast = [parameter.detach().clone() for parameter in network.parameters()]
                kept = share(step / steps)
                slow = fast if slow is None else [kept * a + (1 - kept) * b for a, b in zip(slow, fast, strict=True)]
                with torch.no_grad():
                    for parameter, value in zip(network.parameters(), slow, strict=True):
                        parameter.copy_(value)
    return slow, [*network.parameters()]


SHARES = {
    "rising": (["callbacks.lookahead.power=3"], lambda over: 0.77378 * over**3),
    "constant": (["callbacks.lookahead.decay=0.5", "callbacks.lookahead.power=0"], lambda over: 0.5),
}


@pytest.mark.parametrize(
    ("share", "accumulate", "bad"), [("rising", 1, False), ("constant", 2, False), ("constant", 1, True)]
)
def test_lookahead_is_the_papers_algorithm(tmp_path, monkeypatch, share, accumulate, bad):
    overrides = [*WINE, "callbacks=lookahead", *SHARES[share][0], "scheduler=none", "nonfinite=skip"]
    overrides += ["optimizer.lr=0.1", "optimizer.nesterov=false", "optimizer.weight_decay=0"]
    overrides += [f"trainer.accumulate_grad_batches={accumulate}"]
    if bad:
        monkeypatch.setattr(Wine, "augmentation", lambda self: spoil)
    slow, fast = lookahead_by_hand(tmp_path, overrides, accumulate, SHARES[share][1])
    run(compose(overrides), folder=tmp_path / "run")
    assert (result_of(tmp_path / "run")["skipped"] > 0) == bad
    parts = build(compose(overrides), tmp_path / "run")
    for held, expected in (("state_dict", slow), ("current_model_state", fast)):
        parts.task.load_state_dict(state(tmp_path / "run")[held])
        for parameter, wanted in zip(parts.task.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter, wanted, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(one, other) for one, other in zip(slow, fast, strict=True)), "the run ends between"


def spoil(x, index, epoch):
    """One batch of every epoch but the first, whose batches the statistics are estimated from."""
    return torch.where(((index == 7) & (epoch > 0))[:, None], torch.nan, x)


def test_lookahead_validates_and_saves_its_average_with_statistics_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides = [*WINE, *LOOKAHEAD]
    run(compose([*overrides, "name=run"]))
    assert_precise(tmp_path / "outputs" / "run", overrides)
    again = run(compose(["action=validate", "ckpt=last", "name=run"]))
    last = rows_of(tmp_path / "outputs" / "run")[-1]
    assert again.metrics["val/loss"] == pytest.approx(float(last["val/loss"]), rel=1e-5)


def test_two_averages_in_one_run_are_refused():
    with pytest.raises(ConfigError, match=r"callbacks=\[ema,lookahead\]: each .* an average .* leave out all but one"):
        compose(["callbacks=[ema,lookahead]"])


def test_lightnings_own_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="StochasticWeightAveraging.*callbacks=swa"):
        run(compose(WINE), folder=tmp_path / "run", callbacks=[StochasticWeightAveraging(0.01)])


def test_many_steps_in_a_call_are_refused(quick_run):
    with pytest.raises(ConfigError, match=r"EMA acts in on_train_batch_end; with steps_per_execution=3 use 1"):
        quick_run("callbacks=ema", "steps_per_execution=3")


def test_a_network_that_is_cut_is_refused():
    with pytest.raises(ConfigError, match="callbacks=ema keeps a whole average"):
        compose(["trainer=fsdp", "trainer.devices=2", "callbacks=ema"])
