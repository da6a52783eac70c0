"""Guards train and eval modes: only the trainer may change them."""

from lightning import Callback, LightningModule, Trainer
from torch import nn

from normlab.norms.common.declaration import declaration


class ModeGuard(Callback):
    """Finds a wrongly placed `.train()` or `.eval()`.

    In evaluation every module must be in eval mode. In training every norm layer must be in the mode that it had when
    the fit began, or when `look` was called last, so a layer frozen with `.eval()` stays frozen. Raises RuntimeError
    with the module's name.
    """

    def __init__(self) -> None:
        self.modules: dict[str, nn.Module] = {}
        self.frozen: dict[str, nn.Module] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.look(pl_module)

    def look(self, pl_module: LightningModule) -> None:
        """Takes the present modes as those of training."""
        self.frozen = {name: module for name, module in pl_module.named_modules() if not module.training}

    def on_train_batch_start(self, *_: object) -> None:
        self._check_frozen()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_frozen()
        for name, module in pl_module.named_modules():
            if declaration(module) and not module.training and name not in self.frozen:
                raise RuntimeError(
                    f"{name} is in eval mode during training, so that its statistics stand still: some code called "
                    ".eval() after fit began; leave modes to the trainer"
                )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.modules = dict(pl_module.named_modules())

    def on_validation_batch_start(self, *_: object) -> None:
        self._check_evaluation()

    def on_validation_epoch_end(self, *_: object) -> None:
        self._check_evaluation()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_validation_start(trainer, pl_module)

    def on_test_batch_start(self, *_: object) -> None:
        self._check_evaluation()

    def on_test_epoch_end(self, *_: object) -> None:
        self._check_evaluation()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_validation_start(trainer, pl_module)

    def on_predict_batch_start(self, *_: object) -> None:
        self._check_evaluation()

    def on_predict_epoch_end(self, *_: object) -> None:
        self._check_evaluation()

    def _check_frozen(self) -> None:
        for name, module in self.frozen.items():
            if module.training:
                raise RuntimeError(
                    f"{name} was frozen in eval mode when fit began and is now in train mode: some code called "
                    ".train(); leave modes to the trainer"
                )

    def _check_evaluation(self) -> None:
        for name, module in self.modules.items():
            if module.training:
                raise RuntimeError(
                    f"{name or 'the task'} is in train mode during evaluation, which would normalise with and record "
                    "this batch's statistics: some code called .train(); leave modes to the trainer"
                )
