"""A data module in front of another one, which stays as it is."""

from typing import Any

from lightning import LightningDataModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden

HOOKS = (
    "prepare_data",
    "setup",
    "teardown",
    "train_dataloader",
    "val_dataloader",
    "test_dataloader",
    "predict_dataloader",
    "on_before_batch_transfer",
    "transfer_batch_to_device",
    "on_after_batch_transfer",
    "on_exception",
    "state_dict",
    "load_state_dict",
)


class Wrapped(LightningDataModule):
    """Answers Lightning as `module` does, but for the hooks that a subclass writes.

    Hooks that the module has not written stay Lightning's, which looks at that. Everything else is asked of the module.
    """

    def __init__(self, module: LightningDataModule):
        self.module = module  # first, since Lightning sets the trainer, which the module has
        super().__init__()
        for name in HOOKS:
            if is_overridden(name, module) and not is_overridden(name, self):
                setattr(self, name, getattr(module, name))

    @property
    def trainer(self) -> Trainer | None:
        return self.module.trainer

    @trainer.setter
    def trainer(self, trainer: Trainer | None) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self.module.trainer = trainer

    def __getattr__(self, name: str) -> Any:
        if name == "module":  # a copy that is being made has none yet
            raise AttributeError(name)
        return getattr(self.module, name)
