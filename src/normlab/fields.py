"""Types and ranges of configuration values, told without importing torch.

A value's type comes from the default in its yaml file. `RULES` adds, by field name, what a default cannot say: ranges,
words, and which fields may be null.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from normlab.errors import ConfigError


@dataclass(frozen=True)
class Number:
    """Numbers from `low` to `high`; `open_low` and `open_high` leave out the ends, `whole` all but integers."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    whole: bool = False

    def allows(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low = "" if math.isinf(self.low) else f" {'above' if self.open_low else 'of at least'} {self.low}"
        high = "" if math.isinf(self.high) else f" {'below' if self.open_high else 'of at most'} {self.high}"
        return kind + low + (" and" if low and high else "") + high


class Words(tuple[Any, ...]):
    """These very values, such as words, true, false and null."""

    def allows(self, value: Any) -> bool:
        return any(type(value) is type(word) and value == word for word in self)

    def __str__(self) -> str:
        return " or ".join(show(word) for word in self)


NULL = Words([None])
COUNT = Number(1, whole=True)
SEED = Number(0, 2**32 - 1, whole=True)
POSITIVE = Number(0, open_low=True)
PART = Number(0, 1, open_low=True, open_high=True)  # a part of a whole: neither none nor all of it
LIMIT = (COUNT, Number(0, 1, open_low=True))  # so many batches, or that fraction of them

RULES: dict[str, tuple[Number | Words, ...]] = {
    # the run's own keys
    "action": (Words(["fit", "validate", "test", "predict", "stats", "lr_find"]),),
    "seed": (SEED,),
    "score_mode": (Words(["max", "min", None]),),
    "steps_per_execution": (COUNT,),
    "nonfinite": (Words(["raise", "skip"]),),
    "channels_last": (Words(["auto", True, False]),),
    "allocator": (Words(["fast", "default"]),),
    # a sweep
    "max_batch_size": (COUNT, NULL),
    "n_trials": (COUNT, NULL),
    "n_jobs": (COUNT,),
    "percentile": (Number(0, 100),),
    "n_startup_trials": (Number(0, whole=True),),
    "n_warmup_steps": (Number(0, whole=True),),
    "min_resource": (COUNT, Words(["auto"])),
    "max_resource": (COUNT, Words(["auto"])),
    "reduction_factor": (Number(2, whole=True),),
    "hydra.launcher.n_jobs": (COUNT, Words([-1])),
    # data
    "batch_size": (COUNT,),
    "size": (COUNT,),
    "data.size": (COUNT, NULL),
    "channels": (Words([1, 3]), NULL),
    "crop": (COUNT, NULL),
    "cutout": (COUNT, NULL),
    "mix": (Words(["mixup", "cutmix"]), NULL),
    "mix_alpha": (POSITIVE,),
    "in_memory": (Words(["auto", True, False]),),
    "on_device": (Words(["auto", True, False]),),
    "workers": (Number(0, whole=True), Words(["auto"])),
    "corrupt": (Words(["stop", "skip"]),),
    "samples": (COUNT,),
    "classes": (Number(2, whole=True),),
    "shift": (Number(0, whole=True),),
    "val_fraction": (PART,),
    "test_fraction": (PART,),
    "split_seed": (SEED,),
    "folds": (Number(2, whole=True), NULL),
    "fold": (Number(0, whole=True),),
    "subset": (Number(0, 1, open_low=True), Number(2, whole=True)),
    "label_noise": (Number(0, 1),),
    "data.task": (Words(["classify", "regress"]), NULL),
    "categories": (Words(["onehot", "embed"]),),
    "decimal": (Words([".", ","]),),
    "class_weights": (Words(["balanced"]), NULL),
    # networks and norms
    "order": (Words(["norm_act", "act_norm"]),),
    "depth": (Number(8, whole=True),),
    "hidden_units": (COUNT,),
    "num_groups": (COUNT, NULL),
    "window": (COUNT,),
    "splits": (Number(2, whole=True),),
    "num_domains": (COUNT,),
    "group_size": (COUNT,),
    "norm.method": (Words(["newton", "eigh"]),),
    "norm.iterations": (Number(1, 15, whole=True),),
    "weight_eps": (POSITIVE,),
    "r_max": (Number(1),),
    "d_max": (Number(0),),
    "start": (Number(0, whole=True),),
    "end": (Number(0, whole=True),),
    "eps": (POSITIVE,),
    "norm.momentum": (Number(0, 1), NULL),
    # optimizer and scheduler
    "lr": (POSITIVE,),
    "momentum": (Number(0, 1, open_high=True),),
    "weight_decay": (Number(0),),
    "warmup": (Number(0, 1, open_high=True),),
    "pct_start": (PART,),
    # trainer and callbacks
    "accelerator": (Words(["auto", "cpu", "gpu", "mps"]),),
    "devices": (COUNT, Words(["auto"])),
    "num_nodes": (COUNT, Words(["auto"])),
    "max_restarts": (Number(0, whole=True),),
    "strategy": (Words(["ddp", "fsdp"]),),
    "timeout": (POSITIVE,),
    "precision": (Words(["32-true", "bf16-mixed", "16-mixed", "bf16-true", "64-true"]),),
    "matmul_precision": (Words(["highest", "high", "medium"]),),
    "max_epochs": (COUNT,),
    "max_steps": (COUNT, Words([-1])),
    "gradient_clip_val": (POSITIVE, NULL),
    "accumulate_grad_batches": (COUNT,),
    "overfit_batches": (Number(0, whole=True),),
    "limit_train_batches": LIMIT,
    "limit_val_batches": LIMIT,
    "limit_test_batches": LIMIT,
    "check_val_every_n_epoch": (COUNT,),
    "patience": (COUNT,),
    "clipping": (POSITIVE,),
    "logging_interval": (Words(["step", "epoch"]),),
}

TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def check_value(key: str, value: Any, default: Any) -> None:
    """Raises ConfigError where `value` fits neither the rule of `key` nor, without a rule, the type of its default.

    Interpolations (`${...}`) and mandatory values (`???`) are left to Hydra.
    """
    if isinstance(value, str) and ("${" in value or value == "???"):
        return
    parts = key.split(".")
    rules = RULES.get(key) or RULES.get(f"{parts[0]}.{parts[-1]}") or RULES.get(parts[-1])
    if rules is not None:
        if not any(rule.allows(value) for rule in rules):
            raise ConfigError(f"{key}={show(value)}: expected {' or '.join(str(rule) for rule in rules)}")
    elif not _same_type(value, default):
        raise ConfigError(f"{key}={show(value)}: expected {_type_name(default)}")


def show(value: Any) -> str:
    """A value as it stands in yaml."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _same_type(value: Any, default: Any) -> bool:
    if default is None:
        return True
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    for kind in (str, Mapping, Sequence):
        if isinstance(default, kind):
            return isinstance(value, kind) and isinstance(value, str) == isinstance(default, str)
    return type(value) is type(default)


def _type_name(default: Any) -> str:
    if isinstance(default, Mapping):
        return "an option or its keys"
    return TYPES.get(type(default), "a list, such as [a,b]")
