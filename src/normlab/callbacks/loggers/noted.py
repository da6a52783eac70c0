"""The run of a tracking service that a run folder belongs to."""

import json
from pathlib import Path
from typing import Any

from normlab.folder.files import read_facts
from normlab.folder.writing import write_text


class Note:
    """A small file of a run folder that says which run of a service is the folder's, so that later starts find it."""

    def __init__(self, file: Path):
        self.file = file

    def read(self) -> dict[str, Any]:
        """What it says, and nothing where there is none yet. Raises DamagedError."""
        return read_facts(self.file) if self.file.is_file() else {}

    def write(self, said: dict[str, Any]) -> None:
        write_text(self.file, json.dumps(said, indent=2) + "\n")
