"""The keys that decide what a training comes to, and so whether two configurations are the same run."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

# `nonfinite` is left out: until a batch fails, both policies are the same run, and `skip` may then go on with it.
RUN_KEYS = ("model", "norm", "data", "task", "loss", "optimizer", "scheduler", "seed", "steps_per_execution")
TRAINER_KEYS = (
    "devices",
    "precision",
    "max_epochs",
    "max_steps",
    "gradient_clip_val",
    "accumulate_grad_batches",
    "limit_train_batches",
    "overfit_batches",
)
REPLICATES = ("seed", "data.split_seed", "data.fold")  # runs that differ in these alone repeat each other
LENGTH = "trainer.max_epochs"  # extend=true may raise it
# What came later, with the values at which a run is what it was before they were there.
WITHOUT = {
    "optimizer.layer_decay": (None, 1),
    "optimizer.norm_bias_scale": (None, 1),
    "optimizer.fused": (None,),
    "data.crop_edges": (None, "black"),
}
ELSEWHERE = ("data.root", "data.in_memory", "data.workers", "data.on_device")  # where files lie, and how they are read
ONCE = ("data.changed", "replay")  # what holds for a single start, and is not kept
START = ("init", "freeze", "thaw_at")  # they count where they are set
TRAINING_CALLBACKS = ("agc", "dropout", "initial_scale", "lookahead", "noisy_norms")  # they change what is learned
# They change the statistics or the weights that are evaluated and kept.
KEPT_CALLBACKS = ("ema", "freeze_statistics", "momentum_schedule", "precise_bn", "swa")


def numbers(config: DictConfig) -> dict[str, Any]:
    """The part of a configuration that decides what a training comes to: plain values under dotted keys."""
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    trainer = {key: plain["trainer"].get(key) for key in TRAINER_KEYS}
    if plain["trainer"]["num_nodes"] != 1:
        trainer["num_nodes"] = plain["trainer"]["num_nodes"]
    if trainer["devices"] != 1 or "num_nodes" in trainer:
        trainer["sync_batchnorm"] = plain["trainer"]["sync_batchnorm"]
    if plain["trainer"]["strategy"] != "ddp":
        trainer["strategy"] = plain["trainer"]["strategy"]
    if plain["trainer"]["matmul_precision"] != "highest":
        trainer["matmul_precision"] = plain["trainer"]["matmul_precision"]
    callbacks = {
        name: keys for name, keys in plain["callbacks"].items() if name in (*TRAINING_CALLBACKS, *KEPT_CALLBACKS)
    }
    flat = dict(_flat({key: plain.get(key) for key in RUN_KEYS} | {"trainer": trainer, "callbacks": callbacks}))
    flat |= {key: plain[key] for key in START if plain.get(key) is not None}
    if plain.get("test") is False:  # such a run's result is no substitute for one that was tested
        flat["test"] = False
    for key, values in WITHOUT.items():
        if flat.get(key) in values:
            flat.pop(key, None)
    return {key: value for key, value in flat.items() if key not in (*ELSEWHERE, *ONCE)}


def config_hash(config: DictConfig, but: str | None = None) -> str:
    """Twelve hex digits that tell configurations with different `numbers` apart. but: a key that is left out."""
    counting = {key: value for key, value in numbers(config).items() if key != but}
    return hashlib.sha256(json.dumps(counting, sort_keys=True).encode()).hexdigest()[:12]


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
