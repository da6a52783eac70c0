"""What is refused, and in which words, before torch is imported."""

import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from normlab.config import names
from normlab.config.compose import compose
from normlab.config.options import CONF
from normlab.config.sweep import check_sweep
from normlab.config.unread import trainer_parameters
from normlab.errors import ConfigError
from normlab.folder.identity import config_hash

REFUSED = {
    "model=mynett": "no option mynett in model; did you mean mynet? (options: airbench, custom_model, mlp, my_model",
    "callbacks=[early_stopping,lr_moniter]": "no option lr_moniter in callbacks; did you mean lr_monitor?",
    "modle=net": "no key modle; did you mean model?",
    "trainer.max_epoch=3": "no key max_epoch in trainer; did you mean max_epochs?",
    "+trainer.max_tim=3": "Lightning's Trainer has no parameter max_tim; did you mean max_time?",
    "model.order.x=3": "no key x in model.order, which is a single value",
    "optimizer.lr=abc": "optimizer.lr=abc: expected a number above 0",
    "optimizer.lr=null": "optimizer.lr=null: expected a number above 0",
    "optimizer.nesterov=3": "optimizer.nesterov=3: expected true or false",
    "optimizer.lr=nan": "optimizer.lr=nan: expected a number above 0",
    "norm.momentum=2": "norm.momentum=2: expected a number of at least 0 and of at most 1 or null",
    "model=7": "no option 7 in model",
    "trainer.max_epochs=-3": "trainer.max_epochs=-3: expected a whole number of at least 1",
    "trainer.max_epochs=1.5": "trainer.max_epochs=1.5: expected a whole number of at least 1",
    "trainer.limit_train_batches=1.5": "expected a whole number of at least 1 or a number above 0 and of at most 1",
    "data.batch_size=0": "data.batch_size=0: expected a whole number of at least 1",
    "data.val_fraction=1.5": "data.val_fraction=1.5: expected a number above 0 and below 1",
    "seed=abc": "seed=abc: expected a whole number",
    "seed=true": "seed=true: expected a whole number",
    "task=3": "task=3: expected an option or its keys",
    "optimizer.lr=": "optimizer.lr=: expected a number above 0",
    "optimizer.lr": "optimizer.lr: expected group=option or key=value; is it part of a value?",
    "data.delimiter=;": "quote the value twice: 'key=\"value\"'",
    "action=train": "action=train: expected fit or validate",
    "action=test": "action=test needs a run: name=<run>, or ckpt=<run folder>/checkpoints/best.ckpt",
    "name=../x": "name=../x: expected letters, digits",
    "ckpt=best": "ckpt=best with action=fit",
    "action=predict": "action=predict needs a run: name=<run>, or ckpt=<run folder>/checkpoints/best.ckpt",
    "input=new.csv": "input=new.csv with action=fit: action=predict name=<run> reads it",
    "score_mode=max": "score_mode=max without a score",
    "score=test/acc": "score=test/acc: expected one of val/loss, val/acc, ",
    "score=val/auroc": "val/r2, which each validation measures; task.metrics= adds others",
    "score=lr": "score=lr: expected one of val/loss",
    "data.fold=1": "data.fold=1 without data.folds",
    "~task": "~task: normlab reads task, so it cannot be left out",
    "~trainer": "trainer: expected a part, which has _target_",
    "~logger": "logger is missing: choose logger=none",
    "~trainer.timeout": "normlab reads trainer.timeout, so it cannot be left out",
    "~optimizer.lr": "'optimizer.lr' not found, which stands in scheduler.max_lr",
    "+norm._args_=[3]": "no key _args_ in norm",
    "+trainer.callbacks=[]": "trainer.callbacks is normlab's own",
    "+trainer.fast_dev_run=true": "trainer.fast_dev_run is normlab's own",
}


@pytest.mark.parametrize("override", REFUSED)
def test_refused(override):
    with pytest.raises(ConfigError) as refusal:
        compose([override])
    assert REFUSED[override] in str(refusal.value)


@pytest.mark.parametrize(
    "override",
    [
        "norm.momentum=null",
        "optimizer=adamw",
        "trainer.max_steps=-1",
        "+trainer.max_time=00:00:01:00",
        "callbacks=[early_stopping,model_summary]",
        "logger=none",
        "trainer.limit_train_batches=5",
        "optimizer.weight_decay=0",
        "task.metrics=[acc]",
        "scheduler._target_=torch.optim.lr_scheduler.StepLR",
    ],
)
def test_accepted(override):
    compose([override])


@pytest.mark.parametrize("score", ["loss", "auroc"])
def test_a_score_is_one_of_the_metrics_that_are_chosen(score):
    compose([f"score=val/{score}", "task.metrics=[auroc]"])
    with pytest.raises(ConfigError, match="score=val/acc: expected one of val/loss, val/auroc, which"):
        compose(["score=val/acc", "task.metrics=[auroc]"])


def test_a_monitor_of_the_rate_needs_a_logger():
    with pytest.raises(ConfigError, match="callbacks=lr_monitor writes to loggers, and there is none"):
        compose(["callbacks=lr_monitor", "logger=none"])


def test_a_list_is_shown():
    with pytest.raises(ConfigError, match=r"data.drop=signup: expected a list, such as \[a,b\]"):
        compose(["data=csv", "data.drop=signup"])


def test_two_fractions_must_leave_something_to_train_on():
    with pytest.raises(ConfigError, match="leave nothing to train on"):
        compose(["data.val_fraction=0.5", "data.test_fraction=0.5"])


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["trainer.gradient_clip_val=1"], "trainer.gradient_clip_val=1"),
        (["trainer.accumulate_grad_batches=2"], "trainer.accumulate_grad_batches=2"),
        (["trainer.precision=16-mixed"], "trainer.precision=16-mixed"),
        (["+trainer.val_check_interval=0.5"], "trainer.val_check_interval"),
        (["callbacks=lr_monitor", "callbacks.lr_monitor.logging_interval=step"], "logging_interval=step"),
    ],
)
def test_what_many_steps_per_execution_cannot_be_combined_with(overrides, named):
    compose(overrides)
    with pytest.raises(ConfigError, match="steps_per_execution=4") as refusal:
        compose(["steps_per_execution=4", *overrides])
    assert named in str(refusal.value)


@pytest.mark.parametrize(("group", "extra"), [("logger", "wandb"), ("logger", "mlflow"), ("model", "timm")])
def test_a_missing_extra_is_named(group, extra, monkeypatch):

    monkeypatch.setattr(names, "_installed", lambda distribution: False)
    with pytest.raises(ConfigError, match=rf"{group}={extra} needs {extra}.*pip install -e '\.\[{extra}\]'"):
        compose([f"{group}={extra}"])


def test_a_sweep_is_looked_at_whole():
    with pytest.raises(ConfigError, match="trainer.max_epochs=0"):
        check_sweep(["model=net,mynet", "trainer.max_epochs=3,0"])
    with pytest.raises(ConfigError, match="no option grup"):
        check_sweep(["norm=batch,grup"])
    with pytest.raises(ConfigError, match="only fits are swept"):
        check_sweep(["action=validate,test", "name=x"])


def test_refusals_import_no_torch_and_make_no_folder(tmp_path):
    code = (
        "import sys; from normlab.config.compose import check; from normlab.errors import ConfigError\n"
        "try: check(['trainer.max_epoch=3'])\n"
        "except ConfigError: print('torch' in sys.modules, 'lightning' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
    assert not list(tmp_path.iterdir())


def test_trainer_parameters_are_lightnings():
    import inspect

    from lightning import Trainer

    assert trainer_parameters() == tuple(inspect.signature(Trainer).parameters)


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("seed=1", False),
        ("norm=group", False),
        ("trainer.max_epochs=3", False),
        ("optimizer.lr=0.5", False),
        ("callbacks=agc", False),
        ("callbacks=early_stopping", True),
        ("name=x", True),
        ("logger=none", True),
        ("trainer=cpu", True),
        ("nonfinite=skip", True),
    ],
)
def test_the_hash_tells_runs_apart_by_what_changes_their_weights(override, same):
    assert (config_hash(compose([])) == config_hash(compose([override]))) == same


def test_experiments_set_no_keys_inside_norm_or_model():
    for path in (CONF / "experiment").glob("*.yaml"):
        experiment = OmegaConf.load(path)
        assert "norm" not in experiment, path
        assert "model" not in experiment, path
