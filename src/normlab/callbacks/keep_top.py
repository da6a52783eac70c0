"""Several checkpoints kept: those of the epochs with the best scores.  python train.py callbacks=keep_top"""

import math
from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from normlab.folder.files import read_rows
from normlab.folder.writing import copy_whole, remove


class KeepTop(Checkpoint):
    """Keeps `checkpoints/epoch_<number>.ckpt` of the `count` best epochs; of equal scores the later epoch is better.

    The ranking is read from metrics.csv, and so a run that goes on keeps what one that was never stopped would keep.
    It is a Lightning `Checkpoint` so that `Record` has written the row and last.ckpt before.

    run_folder: where its checkpoints go. monitor, mode: the score and whether `max` or `min` of it is good.
    """

    def __init__(self, run_folder: Path, monitor: str, mode: str, count: int = 3):
        self.folder, self.monitor, self.sign, self.count = run_folder, monitor, 1 if mode == "max" else -1, count

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep(trainer, trainer.current_epoch - 1)  # once more: the run may have been killed just before

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep(trainer, trainer.current_epoch)

    def best_epochs(self) -> list[int]:
        """The numbers of the epochs to keep, the best first."""
        rows = read_rows(self._file("metrics.csv"))
        scores = [(self.sign * float(row.get(self.monitor) or "nan"), int(row["epoch"])) for row in rows]
        ranked = sorted((one for one in scores if math.isfinite(one[0])), reverse=True)
        return [epoch for _, epoch in ranked][: self.count]

    def _keep(self, trainer: Trainer, epoch: int) -> None:
        """Keeps last.ckpt, which is that of `epoch`, if it is among the best, and removes what no longer is."""
        if not trainer.is_global_zero:
            return
        best = {f"epoch_{number}.ckpt" for number in self.best_epochs()}
        if (name := f"epoch_{epoch}.ckpt") in best and self._file("checkpoints", "last.ckpt").is_file():
            copy_whole(self._file("checkpoints", "last.ckpt"), self._file("checkpoints", name))
        for file in self._file("checkpoints").glob("epoch_*.ckpt"):
            if file.name not in best:
                remove(file)

    def _file(self, *names: str) -> Path:
        return self.folder.joinpath(*names)
