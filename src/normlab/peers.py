"""What processes tell each other when one of them waits in vain: who did not come, and where it is instead."""

import itertools
import json
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

from lightning import Trainer
from torch import distributed

from normlab.errors import LostError, PeerError, WaitError
from normlab.norms import ranks

LOOK = 1.0  # seconds between two looks for somebody who asks
PATIENCE = 6.0  # seconds to wait for answers, of processes that may be short of time
SLACK = 2.0  # and for our own threads, which nothing but a store whose host was stopped holds up


class Peers:
    """Completes the error of a collective with the processes that did not come to it, and where they are.

    Use as a context around what processes do together; alone it does nothing. In place of an error that says no more
    than that somebody did not come it raises WaitError, LostError where one of the others gives no answer, and
    PeerError where one has failed. A step costs nothing: a thread looks now and then whether somebody asks. Before the
    processes have met, and where the first one's end has taken their common store along, nobody can be asked.
    """

    numbers = itertools.count()  # of the contexts in this process

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.prefix = f"normlab/peers/{next(self.numbers)}"
        self.over = threading.Event()
        self.watched = threading.get_ident()
        self.answering = threading.Thread(target=self._answer, daemon=True)

    def __enter__(self) -> None:
        if self.trainer.world_size > 1:
            self.answering.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.trainer.world_size == 1:
            return
        self.over.set()
        self.answering.join(LOOK + SLACK)
        if not isinstance(error, Exception):
            return
        answers: dict[int, dict[str, Any]] = {}
        waited = _in_vain(error)
        asking = threading.Thread(target=self._tell, args=(error, waited, answers), daemon=True)
        asking.start()
        asking.join(PATIENCE + SLACK)
        if waited:
            raise self._completed(error, dict(answers)) from error

    def _answer(self) -> None:
        """Says where this process is, once another asks."""
        store: Any = None
        with suppress(RuntimeError):  # the store has ended with its host
            while not self.over.wait(LOOK):
                if store is None and distributed.is_initialized():
                    store = _store()
                if store is not None and store.check([f"{self.prefix}/asked"]):
                    frame = sys._current_frames()[self.watched]
                    self._say(store, f"is {_place(traceback.walk_stack(frame))}, {self._when()}", failed=False)
                    return

    def _tell(self, error: Exception, waited: bool, answers: dict[int, dict[str, Any]]) -> None:
        """Says how this process ended; where it waited, hears what the others say."""
        with suppress(RuntimeError):
            if not distributed.is_initialized():
                return
            store = _store()
            if not waited:
                said = f"failed: {type(error).__name__}: {error}"
                self._say(store, said, failed=not isinstance(error, PeerError))
                return
            self._say(store, f"waited {_place_of(error)}, {self._when()}", failed=False)
            store.set(f"{self.prefix}/asked", "")
            missing = set(range(self.trainer.world_size)) - {self.trainer.global_rank}
            deadline = time.monotonic() + PATIENCE
            while missing and time.monotonic() < deadline:
                for rank in [rank for rank in missing if store.check([f"{self.prefix}/{rank}"])]:
                    answers[rank] = json.loads(store.get(f"{self.prefix}/{rank}"))
                    missing.remove(rank)
                time.sleep(0.1)

    def _say(self, store: Any, what: str, failed: bool) -> None:
        store.set(f"{self.prefix}/{self.trainer.global_rank}", json.dumps({"what": what, "failed": failed}))

    def _when(self) -> str:
        return f"epoch {self.trainer.current_epoch}, step {self.trainer.global_step}"

    def _completed(self, error: Exception, answers: dict[int, dict[str, Any]]) -> Exception:
        own, processes = self.trainer.global_rank, self.trainer.world_size
        message = str(error)
        if not isinstance(error, WaitError):
            message = f"rank {own} of {processes} waited in vain {_place_of(error)} ({_reason(error)})"
        others = [rank for rank in range(processes) if rank != own]
        for rank in others:
            if rank in answers and answers[rank]["failed"]:
                return PeerError(f"rank {rank} {answers[rank]['what']}; {message}")
        if not distributed.is_initialized():
            return WaitError(f"{message}; the processes have not met")
        told = "; ".join(f"rank {r} {answers[r]['what'] if r in answers else 'gives no answer'}" for r in others)
        kind = WaitError if len(answers) == len(others) else LostError
        return kind(f"{message}, {self._when()}; {told}. What only takes longer needs more trainer.timeout")


def _store() -> Any:
    """What the processes have met through, with a connection of its own."""
    return distributed.distributed_c10d._get_default_store().clone()


def _in_vain(error: Exception) -> bool:
    """Whether an error says that others did not come; gloo's errors have no class of their own."""
    return isinstance(error, WaitError | distributed.DistError) or (
        isinstance(error, RuntimeError) and "/gloo/" in str(error)
    )


def _reason(error: Exception) -> str:
    """What a collective says, without the line of C++ that says it."""
    return re.sub(r"^\[\S+\] ", "", str(error).splitlines()[0]) if str(error) else type(error).__name__


def _place_of(error: Exception) -> str:
    return _place(reversed(list(traceback.walk_tb(error.__traceback__))))


def _place(frames: Iterable[tuple[FrameType, int]]) -> str:
    """Where a program is: in a layer that waits for others, or in the innermost function that is not torch's."""
    for frame, line in frames:
        module = frame.f_globals.get("__name__", "")
        if module == ranks.__name__ and "layer" in frame.f_locals:
            return f"in {frame.f_locals['layer']}"
        if not module.startswith(("torch.", ranks.__name__)):
            return f"in {module}.{frame.f_code.co_qualname}, line {line}"
    return "in torch"
