"""A file of a run folder is there whole, as it was or as it is meant to be, and is on the disk when we say so."""

import errno
import os

import pytest
import torch

from normlab import app
from normlab.errors import WriteError
from normlab.folder.saving import WholeCheckpoints
from normlab.folder.writing import append_line, copy_whole, write_text, write_with


def full(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_write_that_fails_leaves_the_file_before_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    write_text(file, "before")
    with pytest.raises(WriteError, match=r"a.txt cannot be written: No space left on device; .* same command") as error:
        write_with(file, lambda part: [part.write(b"half"), full()])
    assert "\n" not in str(error.value)
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, full)
            with pytest.raises(WriteError):
                write_text(file, "after")
    with pytest.raises(KeyboardInterrupt):
        write_with(file, lambda part: (_ for _ in ()).throw(KeyboardInterrupt))
    assert file.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_what_is_written_is_synced_before_it_takes_its_name_and_its_folder_afterwards(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: done.append(os.readlink(f"/proc/self/fd/{number}")) or sync(number))
    monkeypatch.setattr(os, "replace", lambda one, two: done.append("replace") or replace(one, two))
    for write in (
        lambda file: write_text(file, "text"),
        lambda file: WholeCheckpoints().save_checkpoint({"a": torch.zeros(2)}, file),
        lambda file: copy_whole(tmp_path / "source", file),
    ):
        (tmp_path / "source").touch()
        done.clear()
        write(tmp_path / "a")
        assert done == [str(tmp_path / ".a.part"), "replace", str(tmp_path)]
    append_line(tmp_path / "a", "line")
    assert done[-1] == str(tmp_path / "a")


@pytest.mark.parametrize("error", [WriteError("a cannot be written"), OSError(errno.ENOSPC, "No space left", "a")])
def test_a_full_disk_is_told_in_one_line_whoever_wrote_to_it(capsys, error):
    def fail():
        raise error

    assert app._guarded(fail) == 1
    assert capsys.readouterr().err == f"failed: {error}\n"


def test_a_copy_has_blocks_of_its_own(tmp_path):
    source, target = tmp_path / "last.ckpt", tmp_path / "best.ckpt"
    source.write_bytes(os.urandom(100_000))
    copy_whole(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_ino != source.stat().st_ino


def test_a_file_system_that_cannot_sync_folders_will_do(tmp_path, monkeypatch):
    sync = os.fsync

    def of_files_alone(number):
        if os.path.isdir(f"/proc/self/fd/{number}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(number)

    monkeypatch.setattr(os, "fsync", of_files_alone)
    write_text(tmp_path / "a", "text")
    assert (tmp_path / "a").read_text() == "text"
