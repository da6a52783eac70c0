"""Sets the C library's allocator, so that a step's memory is kept for the next one."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
FAST = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1}
DEFAULT = {M_MMAP_MAX: 65536, M_TRIM_THRESHOLD: 128 * 1024}


def set_allocator(mode: str) -> None:
    """`fast` keeps freed memory in the process, `default` gives large blocks back to the kernel at once.

    By default glibc asks the kernel for each large activation again, and the kernel zeroes its pages every time: a
    training step of `mynet` spends two thirds of its time there (benchmarks/mynet.py). `fast` costs a higher resident
    size. Except on Linux with glibc it does nothing, since other allocators keep memory by themselves.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in (FAST if mode == "fast" else DEFAULT).items():
            mallopt(parameter, value)
