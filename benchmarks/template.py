"""lightning-hydra-template's way, for sweeps.py: each job instantiates all that it needs anew.

What its src/train.py and default configuration do, in one file: data module, network in a LightningModule, callbacks
(checkpoint, early stopping, summary, progress bar), CSV logger and trainer by `hydra.utils.instantiate`; fit, then test
the best checkpoint. The network, the data and the optimizer are those of our `model=net data=wine`.
"""

from typing import Any

import hydra
import lightning
import torch
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MaxMetric, MeanMetric
from torchmetrics.classification import Accuracy

from normlab.models.net import Net
from normlab.norms.batch import Batch


class Wine(lightning.LightningDataModule):
    def __init__(self, batch_size: int):
        super().__init__()
        self.save_hyperparameters()
        self.parts: dict[str, TensorDataset] = {}

    def setup(self, stage: str | None = None) -> None:
        if self.parts:
            return
        x, y = load_wine(return_X_y=True)
        rest, test, y_rest, y_test = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
        train, val, y_train, y_val = train_test_split(rest, y_rest, test_size=0.1875, stratify=y_rest, random_state=0)
        scaler = StandardScaler().fit(train)
        for name, inputs, targets in (("train", train, y_train), ("val", val, y_val), ("test", test, y_test)):
            inputs = torch.tensor(scaler.transform(inputs), dtype=torch.float32)
            self.parts[name] = TensorDataset(inputs, torch.tensor(targets))

    def loader(self, name: str) -> DataLoader[Any]:
        return DataLoader(self.parts[name], batch_size=self.hparams["batch_size"], shuffle=name == "train")

    def train_dataloader(self) -> DataLoader[Any]:
        return self.loader("train")

    def val_dataloader(self) -> DataLoader[Any]:
        return self.loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        return self.loader("test")


class Module(lightning.LightningModule):
    def __init__(self, lr: float):
        super().__init__()
        self.save_hyperparameters()
        self.net = Net(Batch(), (13,), 3)
        self.criterion = torch.nn.CrossEntropyLoss()
        self.accuracy = torch.nn.ModuleDict({f"{s}_": Accuracy("multiclass", num_classes=3) for s in STAGES})
        self.loss = torch.nn.ModuleDict({f"{stage}_": MeanMetric() for stage in STAGES})
        self.best = MaxMetric()

    def step(self, batch: Any, stage: str) -> torch.Tensor:
        x, y = batch
        logits = self.net(x)
        loss = self.criterion(logits, y)
        self.loss[f"{stage}_"](loss)
        self.accuracy[f"{stage}_"](logits.argmax(1), y)
        for name, metric in (("loss", self.loss), ("acc", self.accuracy)):
            self.log(f"{stage}/{name}", metric[f"{stage}_"], on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.step(batch, "train")

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.step(batch, "val")

    def on_validation_epoch_end(self) -> None:
        self.best(self.accuracy["val_"].compute())
        self.log("val/acc_best", self.best.compute(), prog_bar=True)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.step(batch, "test")

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), self.hparams["lr"], 0.9, nesterov=True, weight_decay=5e-3)
        total = self.trainer.estimated_stepping_batches
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.hparams["lr"], int(total))
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


STAGES = ("train", "val", "test")
CALLBACKS = "lightning.pytorch.callbacks"
MONITOR = {"monitor": "val/acc", "mode": "max"}
FOLDER = "${hydra:runtime.output_dir}"
CONFIG = {
    "seed": 0,
    "data": {"_target_": f"{__name__}.Wine", "batch_size": 16},
    "model": {"_target_": f"{__name__}.Module", "lr": 0.02},
    "callbacks": {
        "checkpoint": {
            "_target_": f"{CALLBACKS}.ModelCheckpoint",
            "dirpath": f"{FOLDER}/checkpoints",
            "save_last": True,
        }
        | MONITOR,
        "early_stopping": {"_target_": f"{CALLBACKS}.EarlyStopping", "patience": 100} | MONITOR,
        "summary": {"_target_": f"{CALLBACKS}.RichModelSummary", "max_depth": -1},
        "progress": {"_target_": f"{CALLBACKS}.RichProgressBar"},
    },
    "logger": {"csv": {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": FOLDER, "name": "csv/"}},
    "trainer": {"_target_": "lightning.Trainer", "accelerator": "cpu", "devices": 1, "max_epochs": 3},
}
ConfigStore.instance().store("template", CONFIG)


@hydra.main(config_name="template", config_path=None, version_base="1.3")
def main(config: DictConfig) -> float:
    lightning.seed_everything(config.seed, workers=True)
    data = hydra.utils.instantiate(config.data)
    model = hydra.utils.instantiate(config.model)
    callbacks = [hydra.utils.instantiate(node) for node in config.callbacks.values()]
    loggers = [hydra.utils.instantiate(node) for node in config.logger.values()]
    trainer = hydra.utils.instantiate(config.trainer, callbacks=callbacks, logger=loggers)
    trainer.fit(model=model, datamodule=data)
    score = float(trainer.callback_metrics["val/acc_best"])
    trainer.test(model=model, datamodule=data, ckpt_path=trainer.checkpoint_callback.best_model_path)
    return score


if __name__ == "__main__":
    main()
