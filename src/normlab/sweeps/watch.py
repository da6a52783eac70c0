"""Shows the progress of a sweep and its jobs' warnings and failures: a live line on a terminal, else plain lines.

The process that sweeps reads the run folders, so it does not matter in which process a job runs.
"""

import re
import sys
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from hydra.core.utils import JobReturn, JobStatus
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from normlab.errors import SweepError
from normlab.folder import place
from normlab.logs import console
from normlab.sweeps.board import ENDED, FAILED, Board
from normlab.sweeps.pace import Pace

LOOK, LINE = 0.5, 10.0  # seconds between two looks, and between two lines where there is no terminal
SHOWN = 10  # how many folders of failed jobs one line names
WARNING = re.compile(
    rb"^\d{4}-\d\d-\d\d [\d:,]+ (?:WARNING|ERROR|CRITICAL) [\w.]+: *(.+)", re.M
)  # logs.py writes such lines


class Watch:
    """Reports a sweep's jobs while the body of the context runs, and at its end in one line.

    path: the sweep's folder. total: how many jobs it will have. keys: the keys that they differ in. numbers: the
    folders that count; None: all. Ctrl-C is raised again with a message on how to go on.
    """

    def __init__(self, path: Path, total: int, keys: Collection[str], numbers: Collection[int] | None = None):
        self.path, self.total = path, total
        self.board = Board(path, keys, numbers)
        self.read = {number: _size(self._log(number)) for number in self.board.results}  # bytes read of each train.log
        self.warned: set[str] = set()
        self.looking = threading.Lock()
        self.ended = self.board.count(*ENDED)
        self.start = self.last_end = self.last_line = time.monotonic()
        self.pace = Pace(self.start)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.bar: Progress | None = None

    def __enter__(self) -> Self:
        if console.is_terminal:
            text = TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
            self.bar = Progress(BarColumn(30), text, console=console, auto_refresh=False, transient=True, expand=True)
            self.bar.add_task(self._state(), total=self.total, completed=self.ended)
            self.bar.start()
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.over.set()
        self.thread.join()
        self._look()
        if self.bar is not None:
            self.bar.stop()
        self.say(self._summary())
        if isinstance(error, KeyboardInterrupt):
            named = self.path.is_relative_to(place.ROOT)
            how = f" with name={self.path.relative_to(place.ROOT)}" if named else ""
            raise KeyboardInterrupt(f"interrupted; the same command{how} goes on") from None

    def say(self, text: str) -> None:
        """Prints a line, above the live one."""
        console.print(text, markup=False)

    def failed(self, number: int, returned: JobReturn) -> bool:
        """Whether a job that has ended failed. Reports a failure that no result.json tells: a job that never began."""
        if returned.status == JobStatus.COMPLETED:
            return False
        self._look()
        if not (self.board.is_new(number) and self.board.status(number) in FAILED):
            error = _first_line(returned._return_value)  # .return_value would print, and raise
            _complain(f"{self.board.name(number)} failed: {error}; {place.shown(self.path / str(number))}")
        return True

    def error(self, failed: Sequence[int]) -> SweepError:
        """The error that a sweep with failed jobs ends with."""
        shown = ", ".join(str(place.shown(self.path / str(number))) for number in failed[:SHOWN])
        more = f" and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
        return SweepError(f"{len(failed)} of {self.total} jobs failed: {shown}{more}")

    def _watch(self) -> None:
        while not self.over.wait(LOOK):
            self._look()
            if self.bar is not None:
                self.bar.update(self.bar.task_ids[0], description=self._state(), completed=self.ended, refresh=True)
            elif self.last_line < self.last_end and time.monotonic() >= self.last_line + LINE:
                self.last_line = time.monotonic()
                self.say(self._state())

    def _look(self) -> None:
        """Reports the warnings and failures since the last look."""
        with self.looking:
            changed = self.board.look()
            for number in {*changed, *self.board.running()}:
                self._report_warnings(number)
            for number in changed:
                if self.board.status(number) in FAILED:
                    self._report_failure(number)
            over = [n for n in changed if self.board.is_new(n) and self.board.status(n) in ENDED]
            self.pace.look(self.board.running(), over, time.monotonic())
            if (ended := self.board.count(*ENDED)) != self.ended:
                self.ended, self.last_end = ended, time.monotonic()

    def _report_failure(self, number: int) -> None:
        """Prints why a job failed, by its result."""
        error, status = _first_line(self.board.results[number]["error"]), self.board.status(number)
        _complain(f"{self.board.name(number)} {status}: {error}; {place.shown(self._log(number))}")

    def _report_warnings(self, number: int) -> None:
        """Prints the warnings that a job has logged since the last look; one that several jobs give is printed once."""
        log, start = self._log(number), self.read.get(number, 0)
        if _size(log) <= start:
            return
        with log.open("rb") as file:
            file.seek(start)
            text = file.read()
        whole = text.rfind(b"\n") + 1
        self.read[number] = start + whole
        for line in WARNING.findall(text[:whole]):
            warning = line.decode(errors="replace").strip()
            if warning not in self.warned:
                self.warned.add(warning)
                _complain(f"{self.board.name(number)}: {warning}")

    def _log(self, number: int) -> Path:
        return self.path / str(number) / "train.log"

    def _state(self) -> str:
        """How the sweep stands, in one line."""
        counts = [(self.board.count("pruned"), "pruned"), (len(self.board.running()), "running"), *self._failures()]
        parts = [f"{self.board.count('finished')}/{self.total} done", *_words(counts), self._left(), self._best()]
        return ", ".join(filter(None, parts))

    def _left(self) -> str:
        """The time that the other jobs will take; empty before one has ended, and after all have."""
        waiting = self.total - self.ended - len(self.board.running())
        left = self.pace.left(max(waiting, 0), time.monotonic())
        return "" if left is None or self.ended >= self.total else f"{duration(left)} left"

    def _failures(self) -> list[tuple[int, str]]:
        """How many jobs have failed, and the word for it."""
        return [(self.board.count(*FAILED), "failed")]

    def _best(self) -> str:
        """What has come out so far, in words."""
        return self.board.best()

    def _summary(self) -> str:
        """How the sweep has ended, in one line."""
        counts = [(self.board.count(status), status) for status in ("finished", "pruned")] + self._failures()
        counts.append((self.total - sum(count for count, _ in counts), "not finished"))
        time_taken, where = duration(time.monotonic() - self.start), str(place.shown(self.path))
        jobs = "1 job" if self.total == 1 else f"{self.total} jobs"
        return f"{jobs}: " + ", ".join(filter(None, [*_words(counts), self._best(), time_taken, where]))


def duration(seconds: float) -> str:
    """Seconds in words: 12 s, 3 min 12 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def _words(counts: list[tuple[int, str]]) -> list[str]:
    return [f"{count} {status}" for count, status in counts if count > 0]


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # appears above the live line, which redirects stderr


def _first_line(error: object) -> str:
    return (str(error).splitlines() or [""])[0]


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
