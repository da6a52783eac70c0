"""An MLflow run that goes on when ours does.  python train.py logger=mlflow"""

import inspect
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import MLFlowLogger
from typing_extensions import override

from normlab.callbacks.loggers.going_on import GoesOn
from normlab.callbacks.loggers.noted import Note
from normlab.errors import ConfigError
from normlab.folder.place import shown


class MLflow(GoesOn, MLFlowLogger):
    """Lightning's MLFlowLogger. The run folder keeps the number of its MLflow run in mlflow_run.json.

    MLflow forgets nothing, and so what a start logs once more is left out. run_id: another MLflow run.
    """

    __signature__ = inspect.signature(MLFlowLogger)  # the keys of conf/ are checked against it

    def __init__(self, save_dir: str | Path, run_id: str | None = None, **keys: Any):
        self.note = Note(Path(save_dir) / "mlflow_run.json")
        super().__init__(save_dir=str(save_dir), run_id=run_id or self.note.read().get("run_id"), **keys)

    @property
    @override
    @rank_zero_experiment
    def experiment(self) -> Any:  # an MlflowClient
        if self._initialized:
            return self._mlflow_client
        from mlflow.exceptions import MlflowException  # pyright: ignore[reportMissingImports]

        try:
            client = super().experiment
        except MlflowException as error:
            if self._run_id is None:
                raise
            raise ConfigError(
                f"logger.mlflow.tracking_uri={self._tracking_uri} does not have the run {self._run_id} of "
                f"{shown(self.note.file)}: set where it is, or remove the file, and another run is begun"
            ) from error
        self.note.write({"run_id": self._run_id})
        return client

    @override
    def go_on(self, step: int) -> None:
        client, run = self.experiment, self._run_id
        assert run is not None
        names = client.get_run(run).data.metrics
        self.logged = {name: max(value.step for value in client.get_metric_history(run, name)) for name in names}
