"""What networks of other libraries share: names with near matches, reasons that name the network, their norms."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from normlab.checks import did_you_mean
from normlab.norms.base import Norm
from normlab.norms.replace import replace_norms


@contextmanager
def named(name: str, input_shape: Sequence[int]) -> Iterator[None]:
    """Gives what a library says against building it a name: ValueError; ConnectionError where it is about a download."""
    try:
        yield
    except OSError as error:
        raise ConnectionError(f"model.pretrained=true: the weights of {name} cannot be fetched: {error}") from error
    except (ValueError, TypeError, RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        images = "×".join(str(size) for size in input_shape)
        raise ValueError(f"model.name={name} cannot be built for images of {images}: {reason}") from error


def check_name(name: str, known: Collection[str], library: str) -> None:
    """Raises ValueError with near matches for a name that the library does not have."""
    if name not in known:
        raise ValueError(f"model.name={name}: {library} has no such network{did_you_mean(name, known, most=3)}")


def with_norm(network: nn.Module, norm: Norm, input_shape: Sequence[int], keep: Collection[str]) -> nn.Module:
    """The network with its norms replaced; where ranks must be found it is sent two samples of zeros."""
    return replace_norms(network, norm, torch.zeros(2, *input_shape), keep)
