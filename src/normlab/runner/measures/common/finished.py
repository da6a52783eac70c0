"""A finished run as measures see it: its files, and its networks where they are asked for."""

from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from normlab.errors import ConfigError
from normlab.folder.files import read_result
from normlab.folder.place import shown

if TYPE_CHECKING:
    from normlab.runner.measures.common.networks import Networks


class FinishedRun:
    """A run that has finished, within a context that leaves random numbers and messages as they were.

    Raises ConfigError for one that has not.
    """

    def __init__(self, folder: Path):
        self.folder, self.name = folder, shown(folder)
        self.result: dict[str, Any] = read_result(folder)
        if (status := self.result.get("status")) != "finished":
            raise ConfigError(f"{self.name} is measured when it has finished; it is {status or 'not there'}")
        self.context = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.context.close()

    @cached_property
    def networks(self) -> "Networks":
        """The run's networks with their data. Raises ConfigError where they cannot be had."""
        from normlab.runner.measures.common.networks import Networks, undisturbed  # with torch

        self.context.enter_context(undisturbed())
        return Networks(self.folder)

    @property
    def test_accuracy(self) -> float:
        """As the run has measured it, of its best checkpoint. Raises ConfigError where it has not."""
        accuracy = self.result["metrics"].get("test/acc")
        if accuracy is None:
            raise ConfigError(
                f"{self.name} has no test/acc, which takes classes, test=true, and acc among task.metrics"
            )
        return float(accuracy)
