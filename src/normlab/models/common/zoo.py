"""What networks of other libraries share: names with near matches, and reasons that name the network."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from normlab.errors import did_you_mean


@contextmanager
def named(name: str, input_shape: Sequence[int]) -> Iterator[None]:
    """Puts the network's name to what its library says: as ValueError, or ConnectionError where files are missing."""
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
