"""Ctrl-C, SIGTERM and a terminal that closes end a run in order: at once, or after the batch in training."""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from normlab.distributed.slurm import WARNING, batch_job

ASKING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
ENDING = [signal.SIGINT, *ASKING]

WORDS = b" interrupted: the run ends after this batch, and is saved; Ctrl-C again ends it at once\n"


class Interrupts:
    """What signals ask of this process.

    patient: whether a training is on, which looks at `asked` after each batch. Otherwise KeyboardInterrupt is raised at
    once, and so it is at a second Ctrl-C. says: whether the person at the terminal is told that the first one was
    heard. once: only the first signal counts, where one reaches the process from the terminal and from its launcher.
    """

    def __init__(self, says: bool = False, once: bool = False):
        self.asked: int | None = None  # the first signal that asked the run to end
        self.patient = False
        self.says, self.once = says, once
        self.process = os.getpid()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The handler of a signal. Raises KeyboardInterrupt.

        Workers of a DataLoader are forked with it. The run may need them for one more batch, and ends them itself.
        """
        if os.getpid() != self.process:
            if number != signal.SIGINT:
                os._exit(128 + number)
            return
        first, self.asked = self.asked is None, self.asked or number
        if self.patient and (first or self.once or number != signal.SIGINT):
            if first and self.says and number == signal.SIGINT:
                with suppress(OSError):
                    os.write(2, WORDS)  # print may be in the middle of a line
        elif first or not self.once:
            raise KeyboardInterrupt


@contextmanager
def interruptible(says: bool = False, taken: Sequence[int] = ()) -> Iterator[Interrupts]:
    """Handles the signals that ask a process to end, those of SLURM in its jobs, and gives what they ask.

    A handler that somebody else has set stays, such as nohup's or that of a program that calls us, but for the signals
    that are `taken`. Outside of the main thread, which alone gets signals, nothing is handled. What is asked within
    another such context is asked of both.
    """
    main = threading.current_thread() is threading.main_thread()
    interrupts = Interrupts(says)
    heard = ENDING if batch_job() is None else [*ENDING, *WARNING]
    before = {number: signal.getsignal(number) for number in {*heard, *taken} if main}
    ours = {number: handler for number, handler in before.items() if number in taken or _may_be_replaced(handler)}
    for number in ours:
        signal.signal(number, interrupts.handle)
    try:
        yield interrupts
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
            if (outer := _owner(handler)) is not None:
                outer.asked = outer.asked or interrupts.asked


def _may_be_replaced(handler: object) -> bool:
    return _owner(handler) is not None or handler in (signal.SIG_DFL, signal.default_int_handler)


def _owner(handler: object) -> Interrupts | None:
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, Interrupts) else None
