"""Writes checkpoints."""

from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from typing_extensions import override

from normlab.folder.writing import write_with


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's reader, with a writer whose files are whole and on the disk, or not there at all.

    Lightning's own goes by a temporary file that may lie on another disk, and syncs nothing.
    """

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: dict[str, Any] | None = None
    ) -> None:
        """storage_options: `sync`, as in `write_with`."""
        write_with(Path(path), lambda part: _save(checkpoint, part), **(storage_options or {}))


def _save(checkpoint: dict[str, Any], part: BinaryIO) -> None:
    try:
        torch.save(checkpoint, part)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):  # torch's writer stumbles on its way out and hides the cause
            raise error.__context__ from None
        raise
