"""The data of a run, set up for its action."""

from pathlib import Path
from typing import Any

from lightning import LightningDataModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from omegaconf import DictConfig

from normlab.config.inputs import reads_data
from normlab.config.instantiate import make
from normlab.data.common import job_cache
from normlab.data.common.base import DataModule
from normlab.data.common.given import was_given
from normlab.data.common.loaders import Chunks, Fixed, Resumable
from normlab.data.common.own import adopt
from normlab.data.common.wrapped import Wrapped
from normlab.errors import ConfigError
from normlab.runner.trainer import steps_per_call

# The stages for which an action sets data up; the stage `fit` gives the facts.
STAGES = {
    "fit": ("fit", "test"),
    "validate": ("fit", "validate"),
    "test": ("fit", "test"),
    "predict": ("fit", "test", "predict"),
    "export": ("fit", "test"),
    "doctor": ("fit", "test"),
    "stats": ("fit", "test"),
}

# The parts, besides the training part, whose targets an action needs from a person's own data.
MEASURED = {"fit": ("val", "test"), "validate": ("val",), "test": ("test",)}


def build_data(
    config: DictConfig, folder: Path, data: Any = None, rank: int = 0, processes: int = 1, shares: bool = False
) -> Any:
    """The data, set up for the action: loaded and split, or, for new samples, restored from the run's `folder`.

    shares: whether the next run in this process may take what this one has set up. Raises ConfigError.
    """
    given = data is not None
    if data is None and was_given(config):
        raise ConfigError("the data of this run was given from Python: normlab.run(config, data=(train, val, test))")
    data = make(config, "data") if data is None else data
    if processes > 1 and (given or not isinstance(data, DataModule)):
        raise ConfigError(f"own data is not cut into parts for {processes} processes: use trainer.devices=1")
    if isinstance(data, DataModule):
        data.seed, data.rank, data.processes = config.seed, rank, processes
        if not reads_data(config):
            data.restore(folder)
            return data
        data.keeps_raw = config.action == "export"
    elif not isinstance(data, LightningDataModule):
        raise ConfigError(f"data._target_={config.data._target_} is no LightningDataModule")

    def load() -> None:
        data.prepare_data()
        for stage in STAGES.get(config.action, ("fit",)):
            data.setup(stage)

    if isinstance(data, DataModule) and shares:
        job_cache.set_up(data, load)
    else:
        load()
    if not isinstance(data, DataModule):
        data = adopt(data, MEASURED.get(config.action, ()))
    if config.action == "test" and reads_data(config) and not is_overridden("test_dataloader", data):
        raise ConfigError("action=test: this data has no test part")
    return data


class TrainerData(Wrapped):
    """The data of a run as its trainer takes it: batches in chunks, the same few of them, or those to predict.

    The training batches can be gone on with within an epoch.

    inputs: the batches to predict.
    """

    def __init__(self, data: LightningDataModule, config: DictConfig, inputs: Any = None):
        super().__init__(data)
        if config.trainer.overfit_batches and reads_data(config):
            fixed = Fixed(data.train_dataloader(), config.trainer.overfit_batches)
            self.train_dataloader = self.val_dataloader = lambda: fixed
        if (size := steps_per_call(config)) > 1:
            single, limit = self.train_dataloader, config.trainer.limit_train_batches
            self.train_dataloader = lambda: Chunks(single(), size, limit)
        if config.action == "fit":
            whole = self.train_dataloader
            self.train_dataloader = lambda: Resumable(whole())
        if inputs is not None:
            self.predict_dataloader = lambda: inputs
