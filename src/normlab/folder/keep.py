"""Which checkpoints a run keeps: `keep=[best,last,every_10_epochs]`. It imports no torch."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from normlab.errors import ConfigError, did_you_mean
from normlab.folder.place import shown
from normlab.folder.writing import remove

ALWAYS = ("best", "last")  # a run has them until it ends
EVERY = re.compile(r"every_([1-9][0-9]*)_epochs")


def check_keep(keep: Sequence[Any]) -> None:
    """Raises ConfigError for what is no checkpoint."""
    for word in keep:
        if word not in ALWAYS and not EVERY.fullmatch(str(word)):
            hint = did_you_mean(str(word), [*ALWAYS, "every_10_epochs"])
            raise ConfigError(
                f"{typed(keep)}: {word} is none of best, last and every_<number>_epochs, such as every_10_epochs; [] "
                f"keeps none{hint}"
            )


def kept_after(epochs: int, keep: Sequence[str]) -> str | None:
    """The name under which the checkpoint of so many epochs is kept; None where it is not."""
    numbers = [int(every[1]) for word in keep if (every := EVERY.fullmatch(word))]
    return f"after_{epochs}_epochs" if any(epochs and epochs % number == 0 for number in numbers) else None


def drop(folder: Path, keep: Sequence[str]) -> None:
    """Removes what a run that has ended is not to keep."""
    remove(*(folder / "checkpoints" / f"{which}.ckpt" for which in ALWAYS if which not in keep))


def check_kept(file: Path, keep: Sequence[str], wish: str) -> None:
    """Raises ConfigError where a checkpoint is gone that a run was told not to keep. wish: what was typed for it."""
    if file.stem in ALWAYS and file.stem not in keep and not file.is_file():
        kept = sorted(other.name for other in file.parent.glob("*.ckpt"))
        others = f"; it has {', '.join(kept)}" if kept else ""
        raise ConfigError(
            f"{wish} needs {shown(file)}, which the run did not keep ({typed(keep)}){others}: train it under another "
            f"name= with keep=[{file.stem}]"
        )


def typed(keep: Sequence[Any]) -> str:
    return f"keep=[{','.join(map(str, keep))}]"
