"""Walks conf/: every part composes, binds to its target and trains. A new part is tested by being there."""

import inspect
import itertools
import re

import pytest
import torch
from helpers.cases import ORIGINAL, options, rest_slow
from hydra.utils import get_object, instantiate
from lightning import seed_everything
from omegaconf import OmegaConf
from torch import nn

from normlab.config.compose import compose
from normlab.config.options import GROUPS, read_option
from normlab.config.sweep import check_sweep
from normlab.errors import ConfigError
from normlab.norms.batch import Batch
from normlab.norms.common.declaration import declaration
from normlab.norms.common.replace import replace_norms

WHOLE = ("experiment", "sweep")  # groups whose options are of the whole configuration


def target(group: str, option: str):
    return get_object(read_option(group, option)["_target_"])


def refuses(norm: str, space: tuple[int, ...] | None = None, **arguments) -> str | None:
    """What a norm option says to a layer, and for the layer to an input of 16 features; None where all is well."""
    try:
        layer = instantiate(read_option("norm", norm))(16, **arguments)
    except ValueError as error:
        return str(error)
    found = declaration(layer)
    if space is None or found is None or found.batch_stats or found.values((2, 16, *space)) != 1:
        return None
    return "takes its statistics over a single value of each sample"


def refusal(model: str, norm: str) -> str | None:
    """Why a network and a norm do not go together, told from the layers that the network asks for."""
    asked: list[dict] = []

    class Asks(Batch):
        def __call__(self, num_features, dims, act=True):
            layer = super().__call__(num_features, dims, act)
            asked.append({"dims": dims, "act": act})
            layer.register_forward_pre_hook(watch(asked[-1]))
            return layer

    def watch(question: dict):
        return lambda module, args: question.update(space=tuple(args[0].shape[2:]))

    keys = {key: value for key, value in read_option("model", model).items() if not str(key).startswith("_")}
    network = target("model", model)(norm=Asks(), input_shape=(3, 8, 8), out_features=10, **keys)
    network.eval()(torch.zeros(2, 3, 8, 8))
    assert asked
    if "keep" in keys and not drop_in(norm):  # another library's network, whose norms are replaced
        return f"norm={norm} is no drop-in"
    return next((text for arguments in asked if (text := refuses(norm, **arguments))), None)


def drop_in(norm: str) -> bool:
    """Whether an option says that it can stand in any network."""
    try:
        replace_norms(nn.Sequential(nn.BatchNorm2d(16)), instantiate(read_option("norm", norm)))
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(("group", "option"), [(g, o) for g in GROUPS if g not in WHOLE for o in options(g)])
def test_every_yaml_composes_and_binds_to_its_target(group, option, example):
    node = read_option(group, option)
    if not node:
        return
    if "defaults" in node:
        node = compose([f"{group}={option}", *(example(option) if group == "data" else [])])[group]
    if "_target_" not in node and group in ("callbacks", "logger"):
        (node,) = node.values()
    ours = {"overfit_batches", "max_restarts", "timeout", "matmul_precision", "_target_", "_partial_"}
    ours |= {"scheduler": {"interval", "monitor"}, "optimizer": {"layer_decay", "norm_bias_scale"}}.get(group, set())
    keys = {key: value for key, value in OmegaConf.to_container(node).items() if key not in ours}
    inspect.signature(get_object(node["_target_"])).bind_partial(**keys)


@pytest.mark.parametrize("sweep", options("sweep"))
def test_every_search_space_fits_the_defaults(sweep):
    pytest.importorskip("optuna")
    typed = "experiment=claims/order" if sweep == "claims" else f"sweep={sweep}"  # it has no claims of its own
    check_sweep([typed])


# Norms of each kind: by parts of a batch, by earlier batches, by each sample, by all of these, by nothing.
KINDS = {"ghost", "renorm", "group", "switchable", "none"}


def is_beside_a_default(pair: tuple[str, str]) -> bool:
    model, norm = pair
    return norm == "batch" or (model == "net" and norm in KINDS)


@pytest.mark.parametrize(
    ("model", "norm"), rest_slow(itertools.product(options("model"), options("norm")), is_beside_a_default)
)
def test_every_model_trains_with_every_norm(model, norm, quick_run):
    small = ["data.size=8", f"model={model}", f"norm={norm}"]
    if reason := refusal(model, norm):
        with pytest.raises(ConfigError, match=re.escape(reason)):
            quick_run(*small)
    else:
        assert quick_run(*small).score is not None


@pytest.mark.parametrize(
    "data",
    rest_slow(options("data"), lambda case: case[0] not in ("breast_cancer", "iris", "parquet", "fashion_mnist")),
)
def test_every_data_set_trains(data, quick_run, example):
    if data in ORIGINAL:
        pytest.skip("takes its original files alone; data/test_standard.py makes others")
    assert quick_run("model=net", f"data={data}", "data.drop_last=true", *example(data)).score is not None


@pytest.mark.parametrize("model", rest_slow(options("model"), lambda case: case[0] in ("resnet", "timm", "mlp")))
def test_a_network_that_takes_images_refuses_a_table_and_names_others(model, quick_run):
    if getattr(target("model", model), "input_dims", None) == 3:
        with pytest.raises(ConfigError, match=r"takes images.*networks that fit: custom_model, mlp, net"):
            quick_run(f"model={model}", "data=wine")
    else:
        quick_run(f"model={model}", "data=wine")


# What other default tests train too: those of losses, of resuming and of overfitting.
ALONE = [
    ["trainer=overfit", "trainer.max_epochs=2"],
    ["trainer.precision=64-true", "data=wine"],
    ["loss=cross_entropy", "data=wine", "steps_per_execution=2"],
    ["loss=label_smoothing", "data.size=8", "data.shift=0"],
    ["loss=mse", "data=diabetes"],
    ["loss=mae", "data=diabetes"],
    ["score=val/loss", "score_mode=min"],
    ["compile=true", "data=breast_cancer"],
]
PAIRS = [
    *ALONE,
    ["optimizer=adamw", "scheduler=cosine", "data=wine", "callbacks=ema"],
    ["optimizer=sgd", "scheduler=none", "data=diabetes", "callbacks=[swa,freeze_statistics]"],
    ["optimizer=adamw", "scheduler=onecycle", "steps_per_execution=4"],
    ["scheduler=step", "data=breast_cancer", "callbacks=lookahead"],
    ["scheduler=plateau", "data=wine", "callbacks=[precise_bn,momentum_schedule,initial_scale,noisy_norms,dropout]"],
    ["callbacks=[early_stopping,lr_monitor,model_summary,recorder]", "logger=tensorboard"],
    ["trainer=cpu", "trainer.max_epochs=1", "data=breast_cancer"],
    ["trainer=profile", "trainer.max_epochs=1", "trainer.limit_train_batches=2"],
    ["trainer.precision=bf16-mixed", "model=my_model", "data.size=8"],
    ["model=my_model", "data.size=8", "norm=nf", "callbacks=agc"],
    ["trainer.gradient_clip_val=1", "trainer.accumulate_grad_batches=2"],
    ["loss=task", "callbacks=keep_top", "logger=csv", "data=wine"],
    ["loss=focal", "data=wine", "trainer.precision=bf16-mixed"],
    ["loss=huber", "data=diabetes", "trainer.precision=64-true"],
    ["task.metrics=[acc,f1,auroc]"],
    ["model.order=act_norm", "channels_last=false", "allocator=default"],
]


@pytest.mark.parametrize(
    "overrides", rest_slow(((pair,) for pair in PAIRS), lambda case: case[0] not in ALONE), ids=" ".join
)
def test_pairs_of_the_rest_train(overrides, quick_run):
    assert quick_run("model=net", *overrides).score is not None


def test_options_not_run_above_have_a_reason():
    """What a machine may lack, or an extra brings, is composed here and run where it is there."""
    tested = " ".join(["trainer=auto trainer=debug callbacks=none logger=none", *(" ".join(pair) for pair in PAIRS)])
    elsewhere = {"gpu", "mps", "wandb", "mlflow"}
    elsewhere |= {"prediction_time", "tent"}  # they act in action=test: tests/callbacks/test_adapting.py
    elsewhere |= {"ddp", "ddp_cpu", "fsdp", "torchrun", "slurm"}  # test_distributed.py, test_fsdp.py and the like
    for group in ("loss", "optimizer", "scheduler", "trainer", "callbacks", "logger"):
        for option in options(group):
            assert re.search(rf"{group}=\S*\b{option}\b", tested) or option in elsewhere, f"{group}={option}"


@pytest.mark.filterwarnings("default")  # theirs are not ours to mend
@pytest.mark.parametrize("logger", ["wandb", "mlflow"])
def test_extra_loggers(logger, quick_run, monkeypatch, tmp_path):
    pytest.importorskip(logger)
    monkeypatch.chdir(tmp_path)
    offline = ["logger.wandb.offline=true"] if logger == "wandb" else []
    quick_run("data=wine", "model=net", f"logger={logger}", *offline)


@pytest.mark.filterwarnings("default")
def test_each_job_has_a_wandb_run_of_its_own(quick_run, tmp_path):
    pytest.importorskip("wandb")
    for seed in (1, 2):
        quick_run(
            "data=wine", "model=net", "logger=wandb", "logger.wandb.offline=true", f"seed={seed}", folder=str(seed)
        )
    assert len(list(tmp_path.glob("*/wandb/offline-run-*"))) == 2


def test_a_gpu_that_is_not_there_is_said(quick_run):
    with pytest.raises(ConfigError, match="trainer.accelerator=gpu"):
        quick_run("trainer=gpu", "data=wine", "model=net")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("key", ["steps_per_execution=4", "compile=true", "channels_last=true", "channels_last=false"])
def test_trains_on_a_gpu(precision, key, quick_run):
    settings = ["trainer=gpu", "trainer.max_epochs=2", "model=my_model", f"trainer.precision={precision}", key]
    assert quick_run(*settings).score is not None


def test_seed_zero_seeds():
    seed_everything(0, verbose=False)
    first = torch.rand(3)
    seed_everything(0, verbose=False)
    assert torch.equal(first, torch.rand(3))
