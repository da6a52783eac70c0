"""Standard output that nobody reads, or that was closed, ends no run."""

import io
import os
import sys
from contextlib import suppress
from typing import IO, Any


def keep_going() -> None:
    """Drops what this process prints where it cannot be written, as to a closed output or a pipe without a reader."""
    sys.stdout, sys.stderr = _lossy(sys.stdout), _lossy(sys.stderr)


def printable(text: str) -> str:
    """The same text with escapes for what is no text, such as bytes of a file's name that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


class _Lossy(io.FileIO):
    """A file that goes nowhere once it cannot be written."""

    def write(self, data: Any) -> int | None:
        try:
            return super().write(data)
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return super().write(data)


def _lossy(stream: Any) -> IO[str]:
    """The same stream, except that it drops what cannot be written. A stream that a person has set stays as it is."""
    if stream is None:  # it was closed, and a file that is opened later would take its place
        return open(os.devnull, "w")  # stays open as long as the process lives
    if type(stream) is not io.TextIOWrapper or not isinstance(stream.buffer, io.BufferedWriter | io.FileIO):
        return stream
    with suppress(OSError):
        stream.flush()
    file: Any = _Lossy(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        file if isinstance(stream.buffer, io.FileIO) else io.BufferedWriter(file),  # python -u has no buffer
        encoding=stream.encoding,
        errors="backslashreplace",  # the name of a file may be no UTF-8
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
