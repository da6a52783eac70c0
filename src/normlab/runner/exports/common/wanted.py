"""What action=export was asked for."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Wanted:
    """format: the name of one of the modules beside `common`. int8: whether it is to hold integers of 8 bits."""

    format: str
    int8: bool
    checkpoint: Path
