"""What a diagnosis says."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from normlab.doctor.marks import Gain


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    code: its name, a word of docs/doctor.md. layer: the layer that shows it most; None where it is of none. evidence:
    what was seen, with figures. key: what to change, of the configuration or in the own loop. gain: what the change
    brings, measured; None where that takes a training. harms: whether it costs anything; what does not is a note.
    """

    code: str
    layer: str | None
    evidence: str
    key: str
    gain: Gain | None = None
    harms: bool = True

    def as_json(self) -> dict[str, Any]:
        """Plain values, as they stand in doctor.json."""
        plain = {"code": self.code, "layer": self.layer, "evidence": self.evidence, "key": self.key}
        return plain | {"gain": self.gain and self.gain.as_json()}

    def __str__(self) -> str:
        where = "" if self.layer is None else f" ({self.layer})"
        if self.gain is None:
            brings = "not measured: that takes a training"
        elif self.gain.sure:
            brings = f"{self.gain} on {self.gain.samples} test samples, measured"
        else:
            brings = f"{self.gain} on {self.gain.samples} test samples, measured: no more than chance"
        return f"{self.code}{where}: {self.evidence}\n  change: {self.key}\n  brings: {brings}"


@dataclass(frozen=True)
class Diagnosis:
    """All findings of one network. notes: matters of taste, which make no network ill. seen: what was measured."""

    findings: Sequence[Finding]
    notes: Sequence[Finding]
    seen: str

    @property
    def healthy(self) -> bool:
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        """Plain values, as they stand in doctor.json."""
        return {
            "findings": [finding.as_json() for finding in self.findings],
            "notes": [note.as_json() for note in self.notes],
            "seen": self.seen,
        }

    def __str__(self) -> str:
        if self.healthy:
            codes = ", ".join(dict.fromkeys(note.code for note in self.notes))
            return f"healthy: {self.seen}{codes and f'; notes: {codes}'}"
        count = "1 finding" if len(self.findings) == 1 else f"{len(self.findings)} findings"
        return "\n".join([f"{count}: {self.seen}", *map(str, self.findings)])
