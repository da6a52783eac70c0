"""Lets SIGTERM, and a terminal that closes, end a run as Ctrl-C does, before, during and after its training."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ASKING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
ENDING = [signal.SIGINT, *ASKING]


@contextmanager
def interruptible() -> Iterator[None]:
    """Raises KeyboardInterrupt on the signals that ask a process to end.

    A handler that somebody else has set stays, such as nohup's or that of a program that calls us. Outside of the main
    thread, which alone gets signals, it does nothing.
    """
    main = threading.current_thread() is threading.main_thread()
    ours = [number for number in ASKING if main and signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
