"""Signs of life: every second each process of a run tells the launcher where it is.

NCCL's collectives return at once, and its watchdog ends a process that waits in vain without a message. Only the
launcher can then say which process did not come, and where it was instead.
"""

import pickle
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from lightning import Trainer

from normlab.distributed import collectives

PERIOD = 1.0  # seconds between two signs
SILENCE = 5.0  # seconds without a sign, after which a process counts as stopped


@dataclass(frozen=True)
class Sign:
    """The last sign of a process. time: as time.time gives it, in seconds. where: where the process was, in words."""

    time: float
    where: str


class Signs:
    """Writes signs of this process to a file while the body of the context runs; `trainer` is set once there is one."""

    def __init__(self, file: Path):
        self.file = file
        self.trainer: Trainer | None = None
        self.watched = threading.get_ident()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._go, daemon=True)

    def __enter__(self) -> "Signs":
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self.thread.join()

    def _go(self) -> None:
        while True:
            save(self.file, Sign(time.time(), self._where()))
            if self.over.wait(PERIOD):
                return

    def _where(self) -> str:
        words = [place(traceback.walk_stack(sys._current_frames()[self.watched]))]
        if self.trainer is not None:
            words.append(moment(self.trainer))
        if collectives.LastSent.layer is not None:
            words.append(f"after it sent the statistics of {collectives.LastSent.layer}")
        return ", ".join(words)


def place(frames: Iterable[tuple[FrameType, int]]) -> str:
    """Where a program is: in the layer that waits for others, or else in the innermost function outside of torch."""
    for frame, line in frames:
        module = frame.f_globals.get("__name__", "")
        if module == collectives.__name__ and "layer" in frame.f_locals:
            return f"in {frame.f_locals['layer']}"
        if not module.startswith(("torch.", collectives.__name__)):
            return f"in {module}.{frame.f_code.co_qualname}, line {line}"
    return "in torch"


def moment(trainer: Trainer) -> str:
    """How far a process has come."""
    return f"epoch {trainer.current_epoch}, step {trainer.global_step}"


def save(file: Path, value: Any) -> None:
    """Writes a value whole or not at all."""
    part = file.with_name(f".{file.name}")
    part.write_bytes(pickle.dumps(value))
    part.replace(file)


def load(file: Path) -> Any:
    """What `save` wrote; None where there is no file yet."""
    return pickle.loads(file.read_bytes()) if file.is_file() else None
