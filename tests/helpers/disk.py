"""A disk that fails: every write to a folder goes through it, is written down, and can be the one that goes wrong.

It takes the place of the functions by which Python writes files. `replay` does all writes that were seen once more,
elsewhere: if the outcome is the folder itself, no write has gone past.
"""

import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

FILLING = ("open", "write", "mkdir", "link", "fsync")  # what a full disk refuses
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass
class Step:
    """A write to the folder, with the paths relative to it. data: what was written at the place `offset`."""

    kind: str
    path: str
    target: str = ""
    data: bytes = b""
    offset: int = 0


@dataclass
class Disk:
    """Watches the writes to a folder. The one of number `at` goes wrong, as `fault` says.

    `EIO`: this write fails. `ENOSPC`: this one and all later ones fail, after half of the bytes; files can still be
    removed and renamed.
    """

    folder: Path
    fault: str = ""
    at: int = -1
    steps: list[Step] = field(default_factory=list)

    def do(self, step: Step, whole: Callable[[], Any], half: Callable[[], Any] = lambda: None) -> Any:
        number = len(self.steps)
        self.steps.append(step)
        if number == self.at and self.fault == "EIO":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self.folder / step.path))
        if 0 <= self.at <= number and self.fault == "ENOSPC" and step.kind in FILLING:
            half()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder / step.path))
        return whole()

    def name(self, path: Any) -> str | None:
        """A path relative to the folder; None for one outside."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        absolute = Path(os.path.abspath(os.fsdecode(path)))
        return str(absolute.relative_to(self.folder)) if absolute.is_relative_to(self.folder) else None

    @contextmanager
    def watching(self) -> Iterator["Disk"]:
        with pytest.MonkeyPatch.context() as patch:
            opened = self._opening(builtins.open)
            patch.setattr(builtins, "open", opened)
            patch.setattr(io, "open", opened)
            patch.setattr(os, "open", self._opening_by_number(os.open))
            for name in ("unlink", "remove", "rmdir", "mkdir", "truncate", "fsync"):
                patch.setattr(os, name, self._of_one(name, getattr(os, name)))
            for name in ("replace", "rename", "link", "symlink"):
                patch.setattr(os, name, self._of_two(name, getattr(os, name)))
            yield self

    def _opening(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def opening(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
            path = None if isinstance(file, int) or not set(mode) & set("wax+") else self.name(file)
            if path is None:
                return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
            raw = self.do(Step("open", path, mode), lambda: Raw(self, path, mode.replace("t", "").replace("b", "")))
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

        return opening

    def _opening_by_number(self, real: Callable[..., int]) -> Callable[..., int]:
        def opening(path, flags, *given, **named):
            name = self.name(path) if flags & WRITING else None
            if name is None:
                return real(path, flags, *given, **named)
            mode = "w" if flags & os.O_TRUNC else "a"
            return self.do(Step("open", name, mode), lambda: real(path, flags, *given, **named))

        return opening

    def _of_one(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def act(path, *given, **named):
            name = self.name(path)
            step = Step("unlink" if kind == "remove" else kind, name or "")
            whole = lambda: real(path, *given, **named)
            if name is None or not (kind == "fsync" or kind == "mkdir" or os.path.lexists(path)):
                return whole()
            return self.do(step, whole)

        return act

    def _of_two(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def act(source, target, *given, **named):
            names = self.name(source), self.name(target)
            if names == (None, None):
                return real(source, target, *given, **named)
            assert None not in names, f"{kind} over the edge of the folder"
            step = Step("replace" if kind == "rename" else kind, names[0] or "", names[1] or "")
            return self.do(step, lambda: real(source, target, *given, **named))

        return act


class Raw(io.FileIO):
    """A file on such a disk."""

    def __init__(self, disk: Disk, path: str, mode: str):
        super().__init__(disk.folder / path, mode)
        self.disk, self.path = disk, path

    def write(self, data: Any) -> int:
        content = bytes(data)
        offset = os.fstat(self.fileno()).st_size if "a" in self.mode else self.tell()
        name = self.disk.name(self.fileno()) or self.path  # it may have another name by now
        write = super().write
        step = Step("write", name, data=content, offset=offset)
        return self.disk.do(step, lambda: write(content), lambda: write(content[: len(content) // 2]))

    def truncate(self, size: int | None = None) -> int:
        raise AssertionError("a write that the disk does not know")


@dataclass
class Inode:
    """A file's content as programs see it, and as it is on the disk for certain."""

    content: bytearray = field(default_factory=bytearray)
    synced: bytes = b""


def replay(steps: Sequence[Step], folder: Path, power_cut: str = "") -> None:
    """Writes what the steps have written, to an empty folder.

    power_cut: the power fails after them. `data`: names are as they were, and files lost what was not synced, so that
    they are empty or cut off. `names`: also of the names only those are left that were there when their folder was
    synced, or that were made before it was.
    """
    names: dict[str, Inode] = {}
    synced_names: dict[str, Inode] = {}
    folders = ["."]
    for step in steps:
        match step.kind:
            case "open" if "w" in step.target or step.path not in names:
                names.setdefault(step.path, Inode()).content.clear()
            case "write":
                names[step.path].content[step.offset : step.offset + len(step.data)] = step.data
            case "replace":
                names[step.target] = names.pop(step.path)
            case "link":
                names[step.target] = names[step.path]
            case "unlink":
                del names[step.path]
            case "mkdir":
                folders.append(step.path)
            case "fsync" if step.path in folders:
                synced_names = {path: inode for path, inode in synced_names.items() if _within(path) != step.path}
                synced_names |= {path: inode for path, inode in names.items() if _within(path) == step.path}
            case "fsync":
                names[step.path].synced = bytes(names[step.path].content)
    for path in folders:
        (folder / path).mkdir(parents=True, exist_ok=True)
    for path, inode in (synced_names if power_cut == "names" else names).items():
        (folder / path).write_bytes(inode.synced if power_cut else inode.content)


def _within(path: str) -> str:
    return str(Path(path).parent)
