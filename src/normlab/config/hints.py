"""Words of other templates, and what to type here instead."""

from typing import Any

KEYS = {
    "batch_size": "set data.batch_size=",
    "ckpt_path": "a fit goes on by its name=; what validate, test and predict load is ckpt=best, last or a path",
    "data.num_workers": "data lies in memory, or is read ahead by itself; data=image_folder has data.workers=",
    "data.pin_memory": "batches come from memory, or from the device, by themselves; leave it out",
    "debug": "choose trainer=debug, trainer=overfit or trainer=profile",
    "epochs": "set trainer.max_epochs=",
    "hparams_search": "choose sweep=, with -m",
    "hydra_logging": "normlab writes train.log itself; leave it out",
    "layer_decay": "set optimizer.layer_decay=",
    "lr": "set optimizer.lr=",
    "max_epochs": "set trainer.max_epochs=",
    "paths": "set name= for the run folder and data.root= or data.path= for the data",
    "resume": "a fit goes on by its name=",
    "task_name": "set name=",
    "train": "action=test, validate or predict with name=<run> looks at a run without training it",
    "trainer.gpus": "set trainer.accelerator=gpu and trainer.devices=",
}

OPTIONS = {
    ("logger", "many"): "list them: logger=[tensorboard,csv]",
    ("logger", "many_loggers"): "list them: logger=[tensorboard,csv]",
    ("callbacks", "default"): "best and last checkpoint are always kept; list others: callbacks=[early_stopping]",
}

VALUES = {
    "trainer.precision": {"16": "16-mixed", "32": "32-true", "64": "64-true", "bf16": "bf16-mixed"},
}


def key_hint(key: str) -> str:
    """The end of a refusal of a key that there is not; empty where no other template has it."""
    return f"; {KEYS[key]}" if key in KEYS else ""


def option_hint(group: str, option: str) -> str:
    """The end of a refusal of an option that there is not; empty where no other template has it."""
    return f"; {OPTIONS[group, option]}" if (group, option) in OPTIONS else ""


def value_hint(key: str, value: Any) -> str:
    """The end of a refusal of a value; empty where nothing else is meant by it."""
    meant = VALUES.get(key, {}).get(str(value))
    return f"; {key}={meant}" if meant is not None else ""
