"""An interrupt stays one, whatever a library makes of it."""

import sys

import pytest

from normlab import compose
from normlab.errors import WriteError, unmasked
from normlab.folder.files import load_config
from normlab.folder.writing import write_config


def interrupted_at(call: int, action) -> int:
    """Does `action`, raising KeyboardInterrupt at a function call within it; returns how many there were until then."""
    count = 0

    def profile(frame, event, _):
        nonlocal count
        count += 1
        if count == call:
            raise KeyboardInterrupt

    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("moments", [40, pytest.param(150, marks=pytest.mark.slow)])
def test_an_interrupt_while_a_configuration_is_read_is_not_taken_for_a_damaged_file(moments, tmp_path):
    write_config(tmp_path, compose(["model=net", "data=wine"]))

    def read():
        load_config(tmp_path / "config.yaml")

    read()  # what the first reading alone does, such as filling caches, is not counted
    calls = interrupted_at(0, read)
    for call in range(1, calls * 9 // 10, calls // moments):
        with pytest.raises(KeyboardInterrupt), unmasked():
            interrupted_at(call, read)


def test_errors_that_hide_no_interrupt_stay():
    with pytest.raises(ValueError, match="of its own"), unmasked():
        raise ValueError("of its own")


def test_a_file_that_an_interrupted_run_cannot_write_is_said():
    def save_while_interrupted():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise WriteError("the disk is full") from None

    with pytest.raises(WriteError), unmasked():
        save_while_interrupted()
