"""A Weights & Biases run that goes on when ours does.  python train.py logger=wandb"""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from normlab.callbacks.loggers.going_on import GoesOn
from normlab.callbacks.loggers.noted import Note


class Wandb(GoesOn, WandbLogger):
    """Lightning's WandbLogger. The run folder keeps the run's id and what was logged in wandb_run.json.

    A Weights & Biases run forgets nothing, and one that is offline cannot be asked, and so what a start logs once more
    is left out by that file. id: another run.
    """

    def __init__(self, save_dir: str | Path, id: str | None = None, **keys: Any):
        self.note = Note(Path(save_dir) / "wandb_run.json")
        self.said = self.note.read()
        if id is not None or not self.said:
            self.said = {"id": id or secrets.token_hex(4), "logged": {}}
        super().__init__(save_dir=str(save_dir), id=self.said["id"], **keys)

    @override
    def go_on(self, step: int) -> None:
        self.logged = dict(self.said["logged"])

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:  # pyright: ignore
        super().log_metrics(metrics, step)
        if step is not None:
            self.said["logged"] |= dict.fromkeys(metrics, step)
            self.note.write(self.said)
