"""SIGTERM, and a terminal that closes, end a run as Ctrl-C does: before, during and after its training."""

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

    What somebody has set for one of them stays, as nohup does, or a program that calls us. Does nothing in another
    thread than the main one, which alone hears signals.
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
