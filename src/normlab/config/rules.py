"""Ranges and words of configuration values, by the file in `conf/` that has the key: a rule binds no other part."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from normlab.config.options import CONF, origins
from normlab.config.values import NULL, Number, Rules, Words, check_value
from normlab.errors import ConfigError, show

COUNT: Rules = (Number(1, whole=True),)
NATURAL: Rules = (Number(0, whole=True),)
SEED: Rules = (Number(0, 2**32 - 1, whole=True),)
POSITIVE: Rules = (Number(0, open_low=True),)
PART: Rules = (Number(0, 1, open_low=True, open_high=True),)  # a part of a whole: neither none nor all of it
LIMIT: Rules = (*COUNT, Number(0, 1, open_low=True))  # a number of batches, or a fraction of them
STEP_OR_EPOCH: Rules = (Words(["step", "epoch"]),)
MOMENTUM: Rules = (Number(0, 1), NULL)
EPS = {"eps": POSITIVE}
RUNNING = EPS | {"momentum": MOMENTUM}
GROUPED = {"num_groups": (*COUNT, NULL)}
WEIGHTS = {"weight_eps": POSITIVE}
NETWORK = {"order": (Words(["norm_act", "act_norm"]),)}
DECAYED = {"lr": POSITIVE, "weight_decay": (Number(0),)}
SMOOTHED = {"label_smoothing": (Number(0, 1, open_high=True),)}
WAITING = {"n_startup_trials": NATURAL, "n_warmup_steps": NATURAL}

RULES: Mapping[str, Mapping[str, Rules]] = {
    "train": {
        "action": (Words(["fit", "validate", "test", "predict", "stats", "lr_find"]),),
        "seed": SEED,
        "score_mode": (Words(["max", "min", None]),),
        "steps_per_execution": COUNT,
        "nonfinite": (Words(["raise", "skip"]),),
        "channels_last": (Words(["auto", True, False]),),
        "allocator": (Words(["fast", "default"]),),
        "task.class_weights": (Words(["balanced"]), NULL),
    },
    "hydra/sweeper/grid": {"max_batch_size": (*COUNT, NULL)},
    "hydra/sweeper/optuna": {"n_trials": (*COUNT, NULL), "n_jobs": COUNT, "seed": SEED},
    "hydra/sweeper/sampler/tpe": {"n_startup_trials": NATURAL},
    "hydra/sweeper/pruner/median": WAITING,
    "hydra/sweeper/pruner/percentile": WAITING | {"percentile": (Number(0, 100),)},
    "hydra/sweeper/pruner/hyperband": {
        "min_resource": COUNT,
        "max_resource": (*COUNT, Words(["auto"])),
        "reduction_factor": (Number(2, whole=True),),
    },
    "hydra/sweeper/pruner/successive_halving": {
        "min_resource": (*COUNT, Words(["auto"])),
        "reduction_factor": (Number(2, whole=True),),
    },
    "hydra/launcher/joblib": {"n_jobs": (*COUNT, Words([-1]))},
    "data/common/splits": {
        "batch_size": COUNT,
        "val_fraction": PART,
        "test_fraction": PART,
        "split_seed": SEED,
        "folds": (Number(2, whole=True), NULL),
        "fold": NATURAL,
        "subset": (Number(0, 1, open_low=True), Number(2, whole=True)),
        "label_noise": (Number(0, 1),),
        "on_device": (Words(["auto", True, False]),),
    },
    "data/common/images": {
        "size": (*COUNT, NULL),
        "channels": (Words([1, 3]), NULL),
        "crop": (*COUNT, NULL),
        "cutout": (*COUNT, NULL),
        "mix": (Words(["mixup", "cutmix"]), NULL),
        "mix_alpha": POSITIVE,
    },
    "data/common/tables": {
        "task": (Words(["classify", "regress"]), NULL),
        "categories": (Words(["onehot", "embed"]),),
    },
    "data/csv": {"decimal": (Words([".", ","]),)},
    "data/digits": {"size": COUNT, "channels": (Words([1, 3]),), "shift": NATURAL},
    "data/fake": {"samples": COUNT, "classes": (Number(2, whole=True),), "size": COUNT, "channels": (Words([1, 3]),)},
    "data/image_folder": {
        "in_memory": (Words(["auto", True, False]),),
        "workers": (*NATURAL, Words(["auto"])),
        "corrupt": (Words(["stop", "skip"]),),
    },
    "loss/cross_entropy": SMOOTHED,
    "loss/focal": {"gamma": (Number(0),)},
    "loss/huber": {"delta": POSITIVE},
    "loss/label_smoothing": SMOOTHED,
    "model/custom_model": NETWORK | {"hidden_units": COUNT},
    "model/mlp": NETWORK,
    "model/my_model": NETWORK,
    "model/mynet": NETWORK,
    "model/net": NETWORK,
    "model/resnet": {"depth": (Number(8, whole=True),)},
    "norm/batch": RUNNING,
    "norm/batch_channel": RUNNING | GROUPED | WEIGHTS,
    "norm/batch_fast": RUNNING,
    "norm/cross_iteration": RUNNING | {"window": COUNT, "start": NATURAL},
    "norm/domain": RUNNING | {"num_domains": COUNT},
    "norm/evonorm_b0": RUNNING,
    "norm/evonorm_s0": EPS | GROUPED,
    "norm/frn": EPS,
    "norm/frozen": EPS,
    "norm/ghost": RUNNING | {"size": COUNT},
    "norm/group": EPS | GROUPED,
    "norm/instance": EPS,
    "norm/layer": EPS,
    "norm/layer_channels": EPS,
    "norm/mabn": RUNNING | {"window": COUNT, "average_from": NATURAL, "r_max": (Number(1),), "start": NATURAL},
    "norm/nf": WEIGHTS,
    "norm/prediction_time": RUNNING,
    "norm/renorm": RUNNING | {"r_max": (Number(1),), "d_max": (Number(0),), "start": NATURAL, "end": NATURAL},
    "norm/rms": EPS,
    "norm/split": RUNNING | {"splits": (Number(2, whole=True),)},
    "norm/switchable": RUNNING,
    "norm/sync": RUNNING,
    "norm/weight_std": EPS | GROUPED | WEIGHTS,
    "norm/whitening": RUNNING
    | {"group_size": COUNT, "method": (Words(["newton", "eigh"]),), "iterations": (Number(1, 15, whole=True),)},
    "optimizer/adamw": DECAYED,
    "optimizer/sgd": DECAYED | {"momentum": (Number(0, 1, open_high=True),)},
    "scheduler/cosine": {"warmup": (Number(0, 1, open_high=True),)},
    "scheduler/onecycle": {"max_lr": POSITIVE, "pct_start": PART},
    "scheduler/plateau": {"factor": (Number(0, 1, open_high=True),), "patience": NATURAL},
    "scheduler/step": {"step_size": COUNT, "gamma": POSITIVE, "interval": STEP_OR_EPOCH},
    "trainer/auto": {
        "accelerator": (Words(["auto", "cpu", "gpu", "mps"]),),
        "devices": (*COUNT, Words(["auto"])),
        "num_nodes": (*COUNT, Words(["auto"])),
        "max_restarts": NATURAL,
        "strategy": (Words(["ddp", "fsdp"]),),
        "timeout": POSITIVE,
        "precision": (Words(["32-true", "bf16-mixed", "16-mixed", "bf16-true", "64-true"]),),
        "matmul_precision": (Words(["highest", "high", "medium"]),),
        "max_epochs": COUNT,
        "max_steps": (*COUNT, Words([-1])),
        "gradient_clip_val": (*POSITIVE, NULL),
        "accumulate_grad_batches": COUNT,
        "overfit_batches": NATURAL,
        "limit_train_batches": LIMIT,
        "limit_val_batches": LIMIT,
        "limit_test_batches": LIMIT,
        "check_val_every_n_epoch": COUNT,
    },
    "callbacks/agc": {"clipping": POSITIVE, "eps": POSITIVE},
    "callbacks/early_stopping": {"patience": COUNT},
    "callbacks/keep_top": {"count": COUNT},
    "callbacks/lr_monitor": {"logging_interval": STEP_OR_EPOCH},
}


def check_typed(config: DictConfig, key: str, value: Any, default: Any) -> None:
    """Raises ConfigError where `value` fits neither the rule of `key` nor, without a rule, the type of its default.

    config: has the part that the key belongs to, or is to.
    """
    parent = key.rpartition(".")[0]
    target = OmegaConf.select(config, f"{parent}._target_") if parent else None
    check_value(key, value, default, rule(key, target))


def check_all(config: DictConfig) -> None:
    """Raises ConfigError for a value of a configuration, wherever it came from, that breaks its rule or has none to
    stand for, as ${optimizer.lr} where the optimizer has no such key."""
    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        what, *more = str(error).strip().splitlines()
        where = next((line.partition(":")[2] for line in more if "full_key" in line), "")
        raise ConfigError(f"{what}{where and f', which stands in{where}'}") from error

    def look(node: Any, key: str) -> None:
        if isinstance(node, dict):
            for name, value in node.items():
                full = f"{key}.{name}" if key else str(name)
                if (rules := rule(full, node.get("_target_"))) is not None:
                    check_value(full, value, value, rules)
                look(value, full)

    look(plain, "")


def rule(key: str, target: Any) -> Rules | None:
    """The rule of a key; `target` is the class of the part that has it. None where there is none."""
    if key in RULES["train"]:
        return RULES["train"][key]
    *path, field = key.split(".")
    while path and not (CONF / "/".join(path)).is_dir():  # callbacks.agc stands in callbacks/
        path.pop()
    for file in origins("/".join(path), show(target)) if path else ():
        if field in RULES.get(file, {}):
            return RULES[file][field]
    return None
