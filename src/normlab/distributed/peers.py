"""Processes tell each other where they are when one of them waits in vain for another."""

import itertools
import json
import re
import sys
import threading
import time
import traceback
from contextlib import suppress
from types import TracebackType
from typing import Any

from lightning import Trainer
from torch import distributed

from normlab.distributed.signs import moment, place
from normlab.errors import LostError, PeerError, WaitError

LOOK = 1.0  # seconds between two looks for somebody who asks
PATIENCE = 6.0  # seconds to wait for answers, of processes that may be short of time
SLACK = 2.0  # seconds to wait for our own threads; only a store whose host was stopped holds them up


class Peers:
    """Adds to the error of a collective which processes did not come to it, and where they are.

    Use it as a context around what processes do together; for a single process it does nothing. An error that only
    says that somebody did not come is replaced: by WaitError, by LostError where another process gives no answer, and
    by PeerError where one has failed. PeerError also replaces an interruption, since torchrun interrupts the others
    when one fails. This costs a step no time: a thread looks now and then whether somebody asks. Nobody can be asked
    before the processes have met, or once the first process has ended and taken their common store along.
    """

    numbers = itertools.count()  # numbers the contexts in this process

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
        if error is None:
            self.answering.join(LOOK + SLACK)
            return
        answers: dict[int, dict[str, Any]] = {}
        with suppress(KeyboardInterrupt):  # torchrun ends the processes that another's failure leaves behind
            self.answering.join(LOOK + SLACK)
            # In a thread, so that a store that does not answer cannot hold us up.
            telling = threading.Thread(target=self._tell, args=(error, answers), daemon=True)
            telling.start()
            telling.join(PATIENCE + SLACK)
        if (completed := self._completed(error, dict(answers))) is not None:
            raise completed from error

    def _answer(self) -> None:
        """Waits until another process asks, and says where this one is."""
        store: Any = None
        with suppress(RuntimeError):  # the store has ended with its host
            while not self.over.wait(LOOK):
                if store is None and distributed.is_initialized():
                    store = _store()
                if store is not None and store.check([f"{self.prefix}/asked"]):
                    frame = sys._current_frames()[self.watched]
                    self._say(store, f"is {place(traceback.walk_stack(frame))}, {moment(self.trainer)}", failed=False)
                    return

    def _tell(self, error: BaseException, answers: dict[int, dict[str, Any]]) -> None:
        """Says how this process ended. Unless it knows the cause itself, it also hears what the others say."""
        with suppress(RuntimeError):
            if not distributed.is_initialized():
                return
            store = _store()
            if in_vain(error):
                self._say(store, f"waited {_place_of(error)}, {moment(self.trainer)}", failed=False)
                store.set(f"{self.prefix}/asked", "")
                self._hear(store, answers, PATIENCE)
            elif isinstance(error, Exception):
                said = f"failed: {type(error).__name__}: {error}"
                self._say(store, said, failed=not isinstance(error, PeerError))
            else:
                self._hear(store, answers, 0)
                self._say(store, f"was interrupted {_place_of(error)}, {moment(self.trainer)}", failed=False)

    def _hear(self, store: Any, answers: dict[int, dict[str, Any]], patience: float) -> None:
        """Collects what the others say, for `patience` seconds at most."""
        missing = set(range(self.trainer.world_size)) - {self.trainer.global_rank}
        deadline = time.monotonic() + patience
        while missing:
            for rank in [rank for rank in missing if store.check([f"{self.prefix}/{rank}"])]:
                answers[rank] = json.loads(store.get(f"{self.prefix}/{rank}"))
                missing.remove(rank)
            if time.monotonic() >= deadline:
                return
            time.sleep(0.1)

    def _say(self, store: Any, what: str, failed: bool) -> None:
        store.set(f"{self.prefix}/{self.trainer.global_rank}", json.dumps({"what": what, "failed": failed}))

    def _completed(self, error: BaseException, answers: dict[int, dict[str, Any]]) -> Exception | None:
        """The error to raise in place of this one; None where this one says enough."""
        own, processes = self.trainer.global_rank, self.trainer.world_size
        others = [rank for rank in range(processes) if rank != own]
        failed = next((f"rank {r} {answers[r]['what']}" for r in others if r in answers and answers[r]["failed"]), None)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            return PeerError(f"{failed}; rank {own} of {processes} was asked to end") if failed is not None else None
        if not in_vain(error):
            return None
        message = str(error)
        if not isinstance(error, WaitError):
            message = f"rank {own} of {processes} waited in vain {_place_of(error)} ({_reason(error)})"
        if failed is not None:
            return PeerError(f"{failed}; {message}")
        if not distributed.is_initialized():
            return WaitError(f"{message}; the processes have not met")
        where = "; ".join(f"rank {r} {answers[r]['what'] if r in answers else 'gives no answer'}" for r in others)
        kind = WaitError if len(answers) == len(others) else LostError
        return kind(f"{message}, {moment(self.trainer)}; {where}. If it only takes longer, raise trainer.timeout")


def _store() -> Any:
    """The store through which the processes have met, over a connection of its own."""
    return distributed.distributed_c10d._get_default_store().clone()


def in_vain(error: BaseException) -> bool:
    """Whether an error says that other processes did not come; gloo's errors have no class of their own."""
    return isinstance(error, WaitError | distributed.DistError) or (
        isinstance(error, RuntimeError) and "/gloo/" in str(error)
    )


def _reason(error: BaseException) -> str:
    """A collective's message without the line of C++ code that it came from."""
    return re.sub(r"^\[\S+\] ", "", str(error).splitlines()[0]) if str(error) else type(error).__name__


def _place_of(error: BaseException) -> str:
    return place(reversed(list(traceback.walk_tb(error.__traceback__))))
