"""How often checkpoints are brought onto the disk: a sync takes longer than an epoch of a tiny run."""

import math
import os
import time
from pathlib import Path

from normlab.folder.writing import remove, sync_files, sync_folder

SECONDS = 10.0  # between two syncs; a power cut costs a run of shorter epochs as much
SYNCED = ".synced.ckpt"  # how the second name of a synced file ends


class Pace:
    """Says which saves are synced. The files of the last synced one stay until the next, whatever is written between.

    They get a second name, `last.synced.ckpt` and `best.synced.ckpt`, before a save that is not synced replaces them.
    """

    def __init__(self, last: Path, best: Path, table: Path):
        self.files, self.table = (last, best), table
        self.synced_at = -math.inf
        self.is_behind = False  # whether something was saved that is not synced

    def is_due(self) -> bool:
        """Whether the next save is to be synced."""
        if time.monotonic() - self.synced_at >= SECONDS:
            return True
        self.is_behind = self.is_behind or self._keep_synced()
        return not self.is_behind

    def catch_up(self) -> None:
        """Syncs what was saved and is not synced yet."""
        if self.is_behind:
            sync_files(self.table)
            sync_files(*self.files)
            self._drop_synced()
        self.is_behind, self.synced_at = False, time.monotonic()

    def _keep_synced(self) -> bool:
        """Keeps the synced files under a second name; False where the file system gives none."""
        try:
            for file in filter(Path.is_file, self.files):
                remove(synced_name(file))
                os.link(file, synced_name(file))
        except OSError:
            self._drop_synced()
            return False
        sync_folder(self.files[0].parent)
        return True

    def _drop_synced(self) -> None:
        remove(*map(synced_name, self.files))
        sync_folder(self.files[0].parent)


def synced_name(file: Path) -> Path:
    """Where the last synced state of a checkpoint stays while newer ones are not synced."""
    return file.with_suffix(SYNCED)
