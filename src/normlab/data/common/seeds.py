"""Random numbers that depend on named things alone, such as (seed, epoch), and the states of their generators."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch


def mix(*parts: int | str) -> int:
    """One 63-bit seed from several parts; any difference in a part gives an unrelated seed."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A generator that starts from `mix` of the parts."""
    return torch.Generator().manual_seed(mix(*parts))


def seed_everything(seed: int) -> None:
    """Seeds the generators of Python, NumPy and torch, which a person's own data or callbacks may draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state(device: torch.device) -> dict[str, Any]:
    """The states of the generators of Python, NumPy and torch, on the CPU and on `device`; plain values and tensors."""
    name, keys, *rest = cast(tuple[str, np.ndarray, int, int, float], np.random.get_state(legacy=True))
    return {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Puts back what `random_state` gave."""
    version, values, *rest = state["python"]
    random.setstate((version, tuple(values), *rest))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["device"], device)


@contextmanager
def kept_random_state(device: torch.device) -> Iterator[None]:
    """Puts the generators back, after the context, to where they were before it."""
    state = random_state(device)
    try:
        yield
    finally:
        set_random_state(state, device)
