"""Loggers that go on where a run goes on: no value is there twice, and none is missing."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping

from lightning.pytorch.loggers import Logger
from typing_extensions import override


class GoesOn(Logger):
    """A logger that a later start of a run goes on with.

    logged: the last step of each value that earlier starts have logged. Lightning logs the steps after a checkpoint
    once more, and a value up to that step is then left out.
    """

    logged: Mapping[str, int] = {}

    @abstractmethod
    def go_on(self, step: int) -> None:
        """Forgets what was logged at `step` or later, where the log lets it, and notes in `logged` what is there."""

    @override
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:  # pyright: ignore
        if self.logged and step is not None:
            metrics = {name: value for name, value in metrics.items() if self.logged.get(name, -1) < step}
        if metrics:
            super().log_metrics(dict(metrics), step)  # pyright: ignore[reportAbstractUsage]


def go_on(loggers: Iterable[Logger], step: int, row: Mapping[str, float]) -> None:
    """Lets the loggers of a run go on at `step`, which is the next that Lightning logs.

    row: the values of the epoch that has just ended. Lightning logs them after its checkpoint is saved, and they are
    missing where a run was killed in between.
    """
    for logger in loggers:
        if isinstance(logger, GoesOn):
            logger.go_on(step)
            if row:
                logger.log_metrics(row, step - 1)
                logger.save()
