"""Looks at a run once more: loads its best checkpoint and its data, and has the network answer the test part."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import DictConfig
from torch import nn

from normlab.config.compose import of_run
from normlab.data.common.base import DataModule
from normlab.data.common.given import was_given
from normlab.data.common.targets import target_columns
from normlab.errors import ConfigError
from normlab.folder import same_data
from normlab.folder.checkpoints import load_weights, read
from normlab.folder.files import read_facts
from normlab.logs import no_logging, quiet_lightning
from normlab.report.single import layers
from normlab.report.single.answers import Answers, Look
from normlab.report.single.watch import Watch, sample
from normlab.runner.answering import Answering
from normlab.runner.build import build
from normlab.runner.data import TrainerData

ACTIONS = {"test": "test", "val": "validate"}


def look(folder: Path, checkpoint: Path, part: str, trusted: Sequence[str] = ()) -> Look:
    """What the weights of a checkpoint say and hold. part: test or val. Writes nothing.

    What cannot be had is left out and named. trusted: as `trust=`. Raises DamagedError where the checkpoint is none.
    """
    state = read(checkpoint)["state_dict"]
    seen = Look()
    with no_logging():
        quiet_lightning()
        network: nn.Module | None = None
        try:
            config = of_run(folder, trusted)
        except ConfigError as error:
            hint = "; for this page --trust <package>" if "trust=[" in str(error) else ""
            seen.missing.append(f"No sample was looked at: {error}{hint}")
        else:
            network = _answered(seen, config, folder, checkpoint, part)
            network = _alone(seen, config, folder, checkpoint) if network is None else network
    seen.layers, seen.weights = layers.of_checkpoint(state) if network is None else layers.of_network(network)
    return seen


def _answered(seen: Look, config: DictConfig, folder: Path, checkpoint: Path, part: str) -> nn.Module | None:
    """The network, once it has answered all samples; None where it could not."""
    if was_given(config):
        seen.missing.append("No sample was looked at: the data of this run was given from Python, which keeps none.")
        return None
    try:
        with isolate_rng():
            task, seen.answers = _answers(config, folder, checkpoint, part)
    except Exception as error:  # the data is a person's own, and may be gone in any way
        kind = "" if isinstance(error, ConfigError | FloatingPointError) else f"{type(error).__name__}: "
        seen.missing.append(f"No sample was looked at: {kind}{' '.join(str(error).split())}")
        return None
    return task.network


def _answers(config: DictConfig, folder: Path, checkpoint: Path, part: str) -> tuple[Any, Answers]:
    config.action, config.compile = ACTIONS[part], False
    config.trainer.devices, config.trainer.num_nodes, config.trainer.accelerator = 1, 1, "auto"
    parts = build(config, folder / config.action)
    data: Any = parts.data
    task = parts.task
    load_weights(task, checkpoint)
    ours = isinstance(data, DataModule)
    if ours:
        _check_same(folder, data)
    loader = data.test_dataloader() if part == "test" else data.val_dataloader()
    watch = Watch(getattr(task, "target_std", None))
    parts.trainer.callbacks.append(watch)  # pyright: ignore[reportAttributeAccessIssue]
    # Batches of own data go through its hooks.
    source: dict[str, Any] = {"dataloaders": loader} if ours else {"datamodule": TrainerData(data, config, loader)}
    parts.trainer.predict(task, return_predictions=False, **source)
    truth, said = watch.all()
    names = data.sample_names.get(part) if ours else None
    kept = data.kept(names) if names is not None and part == "test" else {}
    worst = [sample(data, x, loss, place, names, kept) for loss, place, x in watch.worst()]
    return task, Answers(part, data.task, target_columns(data), truth, said, worst)


def _check_same(folder: Path, data: DataModule) -> None:
    """Raises ConfigError for other data than the run was trained on: what it was tested on may be trained on here."""
    file = folder / same_data.FILE
    if data.fingerprint is None or not file.is_file():
        return
    if changes := same_data.changes(read_facts(file), data.fingerprint):
        raise ConfigError(f"the data is not what the run was trained on: {same_data.listed(changes)}.")


def _alone(seen: Look, config: DictConfig, folder: Path, checkpoint: Path) -> nn.Module | None:
    """The network with its weights, built by what the run folder keeps of the data; None where that does not do."""
    try:
        return Answering(config, folder, checkpoint).task.network
    except Exception:
        seen.missing.append("The network could not be built without its data: layers are told by their names.")
        return None
