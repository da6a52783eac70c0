"""The cases that tests walk over: options, bundled data sets, and which of them run by default."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from normlab.config.options import options as listed

ROOT = Path(__file__).parent.parent.parent


ORIGINAL = ("cifar10", "cifar100", "svhn")  # data sets that take their original files alone


QUICK = ["trainer=debug", "logger=none", "data.batch_size=32"]


def rest_slow(cases: Iterable[Any], quick: Callable[[tuple[Any, ...]], bool]) -> list[Any]:
    """Cases of a test, each a value or a tuple: those that are `quick` run by default, the others by -m slow."""
    tuples = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*case, marks=() if quick(case) else pytest.mark.slow) for case in tuples]


def options(group: str) -> list[str]:
    """A group's options; an empty group would make a test pass without testing anything."""
    found = listed(group)
    assert found, f"conf/{group} holds no option"
    return found


def bundled() -> list[str]:
    """The data sets that need neither a file nor a download, and are no bytes."""
    needing = re.compile(r"^path:|^root:|common/files|common/images", re.M)
    return [option for option in options("data") if not needing.search((ROOT / f"conf/data/{option}.yaml").read_text())]


WINE = ["model=net", "data=wine", "logger=none"]
