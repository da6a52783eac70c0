"""A run folder has one process at a time, on whatever machine; nobody is locked out by one that is gone."""

import json
import os
import shutil
import threading
import time

import pytest
from filelock import FileLock

from normlab.errors import ConfigError
from normlab.folder import lock


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.05)
    monkeypatch.setattr(lock, "SILENCE", 1.0)


@pytest.fixture
def elsewhere(monkeypatch):
    """Lets what follows act as another machine, which does not see this one's locks."""

    def go():
        monkeypatch.setattr(lock, "_boot", lambda: "another")
        monkeypatch.setattr(FileLock, "acquire", lambda *given, **named: None)

    return go


def test_another_machine_is_refused_while_the_process_lives_and_let_in_once_it_is_silent(tmp_path, elsewhere):
    with lock.hold(tmp_path):
        elsewhere()
        for _ in range(2):
            with pytest.raises(ConfigError, match=f"process {os.getpid()} on .* is writing to .*choose another name="):
                lock.hold(tmp_path).__enter__()
        kept = (tmp_path / ".owner").read_bytes()
        number = (tmp_path / ".owner").stat().st_ino
    assert not (tmp_path / ".owner").exists()
    content = json.loads(kept)
    (tmp_path / ".owner").touch()  # as a power cut leaves it
    (tmp_path / ".owner").write_text(json.dumps(content | {"file": (tmp_path / ".owner").stat().st_ino, "boot": "x"}))
    assert number == content["file"]
    began = time.monotonic()
    with lock.hold(tmp_path):
        assert time.monotonic() - began > 0.5


def test_what_is_old_or_of_this_machine_is_nobodys(tmp_path, monkeypatch):
    owner = tmp_path / ".owner"
    monkeypatch.setattr(lock, "SILENCE", 1e6)
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: pytest.fail("it waits"))
    (tmp_path / ".lock").touch()
    for boot, age in ((lock._boot(), 0), ("another", 2e6)):
        owner.touch()
        owner.write_text(json.dumps({"host": "a", "boot": boot, "process": 1, "file": owner.stat().st_ino}))
        os.utime(owner, (time.time() - age,) * 2)
        with lock.hold(tmp_path):
            assert json.loads(owner.read_text())["process"] == os.getpid()


def test_a_copy_of_a_folder_in_use_is_free(tmp_path, elsewhere, monkeypatch):
    (tmp_path / "a").mkdir()
    with lock.hold(tmp_path / "a"):
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "b" / ".owner").is_file()
        elsewhere()
        monkeypatch.setattr(lock.time, "sleep", lambda seconds: pytest.fail("it waits"))
        with lock.hold(tmp_path / "b"):
            pass


def test_a_file_system_without_locks_will_do(tmp_path, monkeypatch):
    def no_locks(self, timeout):
        raise OSError(lock.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", no_locks)
    refused = []

    def enter():
        try:
            lock.hold(tmp_path).__enter__()
        except ConfigError as error:
            refused.append(error)

    with lock.hold(tmp_path):
        other = threading.Thread(target=enter)
        other.start()
        other.join()
    assert len(refused) == 1
    with lock.hold(tmp_path):
        pass
