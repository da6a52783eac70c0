"""What the doctor has said of a run: doctor/doctor.json in its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from normlab.report.runs import read_json
from normlab.report.single.words import NOTHING

ENDS = ("before", "after")


def section(folder: Path) -> dict[str, Any] | None:
    """The findings and notes, a row each; None where the doctor has not looked, or its file cannot be read."""
    said = read_json(folder / "doctor" / "doctor.json")
    if not isinstance(said, dict) or not isinstance(said.get("seen"), str):
        return None
    rows = {key: [_row(each) for each in _dicts(said.get(key))] for key in ("findings", "notes")}
    return {"seen": said["seen"], **rows}


def _dicts(content: Any) -> list[Mapping[str, Any]]:
    return [each for each in content if isinstance(each, dict)] if isinstance(content, list) else []


def _row(finding: Mapping[str, Any]) -> tuple[str, ...]:
    said = (str(finding.get(key) or NOTHING) for key in ("code", "layer", "evidence", "key"))
    return (*said, _gain(finding.get("gain")))


def _gain(gain: Any) -> str:
    """`accuracy 0.61 → 0.94`, or why there is no figure."""
    if not isinstance(gain, dict):
        return "not measured: that takes a training"
    before, after = (f"{value:.3g}" if isinstance(value, float) else "NaN" for value in map(gain.get, ENDS))
    return f"{gain.get('metric')} {before} → {after}{'' if gain.get('sure') else ', no more than chance'}"
