"""float16 with scaled losses, which Lightning has on GPUs only, on the CPU."""

from lightning import Callback
from lightning.pytorch.plugins import MixedPrecision

from normlab.tasks.scaler import Scaler


class Scaled(Callback):
    """Trains with 16-mixed by the scaler of a run on a GPU."""

    def setup(self, trainer, task, stage):
        trainer.strategy._precision_plugin = MixedPrecision("16-mixed", "cpu", Scaler("cpu"))
