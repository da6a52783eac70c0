"""Random numbers that depend on named things alone, such as (seed, epoch)."""

import hashlib

import torch


def mix(*parts: int | str) -> int:
    """One 63-bit seed from several parts; any difference in a part gives an unrelated seed."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A generator that starts from `mix` of the parts."""
    return torch.Generator().manual_seed(mix(*parts))
