"""What can be known of a configuration without torch: names, and settings that do not go together."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from normlab.config.cutting import check_cutting, cuts
from normlab.config.inputs import ALONE, NEED_A_RUN, READ_INPUT, checkpoint_path, input_path, output_folder, reads_data
from normlab.config.metrics import measured
from normlab.config.options import origins
from normlab.config.starting import check_start
from normlab.errors import ConfigError
from normlab.folder.keep import check_keep, check_kept
from normlab.folder.place import NAME, check_place
from normlab.folder.reuse import check_result

# What acts on each single step, with the value that turns it off.
SINGLE_STEP_ONLY = {"gradient_clip_val": None, "accumulate_grad_batches": 1}


HOOKED = ("noisy_norms", "dropout")  # callbacks that change what passes through layers
AVERAGING = ("ema", "swa", "lookahead")  # callbacks whose average is what is validated, saved and used


def check_config(config: DictConfig, run_folder: Path) -> None:
    """Raises ConfigError where settings do not go together or name a file that is not there."""
    data = config.data
    if "data/common/splits" in origins("data", data.get("_target_")):
        _check_splits(data)
    if "path" in data.keys() and reads_data(config):  # noqa: SIM118  # a key whose value is ??? is not in it
        _check_files(data)
    if config.score_mode is not None and config.score is None:
        raise ConfigError(f"score_mode={config.score_mode} without a score: set score= too")
    _check_score(config)
    if "lr_monitor" in config.callbacks and not config.logger and config.action == "fit":
        raise ConfigError("callbacks=lr_monitor writes to loggers, and there is none: choose logger=, or leave it out")
    if config.action == "fit":
        _check_callbacks(config)
    check_output(config, run_folder)
    _check_input(config, run_folder)
    if config.steps_per_execution > 1:
        _check_single_step_only(config)
    if config.trainer.devices != 1 or config.trainer.num_nodes != 1:
        _check_single_process_only(config)
    if cuts(config):
        check_cutting(config)
    check_keep(config.keep)
    check_start(config, run_folder)
    if config.action == "fit" and config.ckpt is not None:
        raise ConfigError(f"ckpt={config.ckpt} with action=fit: a fit resumes by its name=")
    checkpoint = checkpoint_path(config, run_folder)
    if checkpoint is not None and not checkpoint.is_file():
        check_kept(checkpoint, config.keep, f"action={config.action}")
        if config.ckpt is None:
            raise ConfigError(f"action={config.action}: {run_folder} has no checkpoint yet; let its fit end an epoch")
        raise ConfigError(f"ckpt={config.ckpt}: there is no file {checkpoint}")


def _check_splits(data: DictConfig) -> None:
    if {"val_fraction", "test_fraction"} <= data.keys() and data.val_fraction + data.test_fraction >= 1:
        raise ConfigError(
            f"data.val_fraction={data.val_fraction} and data.test_fraction={data.test_fraction} "
            "leave nothing to train on"
        )
    folds, fold = data.get("folds"), data.get("fold", 0)
    if folds is None and fold != 0:
        raise ConfigError(f"data.fold={fold} without data.folds: say of how many parts this is one")
    if folds is not None and fold >= folds:
        raise ConfigError(f"data.fold={fold}: of data.folds={folds}, the last is {folds - 1}")


def _check_score(config: DictConfig) -> None:
    """Raises ConfigError for a score that no validation will measure."""
    if config.score is None:
        return
    known = [f"val/{name}" for name in measured(config.task.metrics)]
    if config.score not in known:
        raise ConfigError(
            f"score={config.score}: expected one of {', '.join(known)}, which each validation measures; task.metrics= "
            "adds others"
        )


def _check_files(data: DictConfig) -> None:
    """Looks at the file or folder that our own data sets are to read, as far as that goes without torch and pandas."""
    if not data._target_.startswith("normlab.data."):
        return
    if "target" not in data.keys():  # noqa: SIM118
        _check_folder(data)
        return
    from normlab.data.tables.header import check_table  # looks into files with the help of this module

    keys: Any = OmegaConf.to_container(data, resolve=True)
    check_table(keys)


def _check_folder(data: DictConfig) -> None:
    """Raises ConfigError for images that are not named, or not there."""
    if OmegaConf.is_missing(data, "path"):
        raise ConfigError("data.path= is needed: the folder of the images")
    if not Path(data.path).is_dir():
        reason = "that is a file; a folder is needed" if Path(data.path).exists() else "there is no such folder"
        raise ConfigError(f"data.path={data.path}: {reason}")


def check_output(config: DictConfig, run_folder: Path) -> None:
    """Raises ConfigError where an action cannot write, or would write over what another one has left."""
    if config.out is not None and config.action not in NEED_A_RUN:
        raise ConfigError(f"out={config.out} with action={config.action}: name= says where that writes")
    if config.out is not None and not str(config.out):
        raise ConfigError("out= is empty: expected a folder to write into")
    folder = output_folder(config, run_folder)
    check_place(folder, "out=<another folder> writes there" if config.action in NEED_A_RUN else NAME)
    if config.action in NEED_A_RUN:
        check_result(folder, config.action, config.input)


def _check_input(config: DictConfig, run_folder: Path) -> None:
    path = input_path(config)
    if path is None:
        return
    if not str(config.input):
        raise ConfigError("input= is empty: expected a file or folder of new samples")
    if config.action not in READ_INPUT:
        raise ConfigError(
            f"input={path} with action={config.action}: action=predict name=<run> reads it, and action=test where it "
            "is labelled"
        )
    if not path.exists():
        raise ConfigError(f"input={path}: there is no such file or folder")
    if not (run_folder / "data.json").is_file():
        raise ConfigError(
            f"input={path}: {run_folder} has no data.json to read new samples by, as of a run on data "
            "given from Python: leave out input= to take the test part, or give the samples from Python too"
        )
    if config.action == "test":
        from normlab.data.tables.header import check_labelled  # looks into files with the help of this module

        keys: Any = OmegaConf.to_container(config.data, resolve=True)
        check_labelled(path, keys, run_folder)


def _check_callbacks(config: DictConfig) -> None:
    """Raises ConfigError for callbacks that do not go together, or that other settings leave nothing to do."""
    for name in HOOKED:
        if name in config.callbacks and config.compile:
            raise ConfigError(f"callbacks={name} works by hooks, which compiled code does not call: set compile=false")
    averaging = [name for name in config.callbacks if name in AVERAGING]
    if len(averaging) > 1:
        raise ConfigError(
            f"callbacks=[{','.join(averaging)}]: each of them has an average of the weights be validated and saved; "
            "leave out all but one"
        )
    if "initial_scale" in config.callbacks and config.init is not None:
        raise ConfigError(
            f"callbacks=initial_scale multiplies the weights that a network is made with, and init={config.init} puts "
            "others in their place: leave out one of the two"
        )


def _check_single_step_only(config: DictConfig) -> None:
    steps = f"steps_per_execution={config.steps_per_execution}"
    for key, off in SINGLE_STEP_ONLY.items():
        if config.trainer[key] != off:
            raise ConfigError(f"trainer.{key}={config.trainer[key]} cannot be combined with {steps}; use 1")
    if config.trainer.precision == "16-mixed":
        raise ConfigError(f"trainer.precision=16-mixed scales each step and cannot be combined with {steps}; use 1")
    if "val_check_interval" in config.trainer:
        raise ConfigError(f"trainer.val_check_interval cannot be combined with {steps}; use 1")
    monitor = config.callbacks.get("lr_monitor")
    if monitor is not None and monitor.logging_interval == "step":
        raise ConfigError(f"callbacks.lr_monitor.logging_interval=step cannot be combined with {steps}; use epoch")
    if "recorder" in config.callbacks:
        raise ConfigError(f"callbacks=recorder looks into single steps and cannot be combined with {steps}; use 1")


def _check_single_process_only(config: DictConfig) -> None:
    key = "devices" if config.trainer.devices != 1 else "num_nodes"
    devices = f"trainer.{key}={config.trainer[key]}"
    if config.steps_per_execution > 1:
        raise ConfigError(f"steps_per_execution={config.steps_per_execution} cannot be combined with {devices}; use 1")
    if config.action in ALONE or not reads_data(config):
        new = "" if config.action in ALONE else f" input={config.input}"
        raise ConfigError(
            f"action={config.action}{new} cannot be combined with {devices}: it takes one process, trainer.devices=1"
        )
    if config.action == "fit" and config.doctor:
        raise ConfigError(
            f"doctor=true cannot be combined with {devices}: action=doctor name=<run> looks at it afterwards, in one "
            "process"
        )
    if config.action == "lr_find":
        raise ConfigError(
            f"action=lr_find cannot be combined with {devices}: search with trainer.devices=1 and data.batch_size= of "
            "all processes together"
        )
