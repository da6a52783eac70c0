"""claims.json in a sweep's folder: which claims its runs are for, with the arms of each; see docs/laboratory.md."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from normlab.config.claims import Laboratory
from normlab.folder import writing

FILE = "claims.json"
FORMAT = 1  # a change that this version could not read raises it


def write_claims(path: Path, lab: Laboratory, refused: Mapping[str, str]) -> None:
    """Replaces the file in a sweep's folder, in one step. refused: why arms were not run, by their names."""
    claims = [{**claim, "pairs": [_pair(pair, refused) for pair in claim["pairs"]]} for claim in lab.claims]
    content = {"format": FORMAT, "form": lab.form, "claims": claims}
    writing.write_text(path / FILE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _pair(pair: dict[str, Any], refused: Mapping[str, str]) -> dict[str, Any]:
    """A pair of data and network, with why it was not run; None where it was."""
    return {**pair, "missing": next((refused[arm] for arm in pair["arms"].values() if arm in refused), None)}
