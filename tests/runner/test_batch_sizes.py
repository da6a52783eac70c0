"""The sizes of batches that processes get."""

from normlab.runner.batch_sizes import shares


def test_processes_get_shares_as_equal_as_can_be():
    assert shares([8, 3], 1) == [8, 3]
    assert shares([8, 3], 2) == [4, 2, 1]
    assert shares([16, 3], 4) == [4, 1, 0]
