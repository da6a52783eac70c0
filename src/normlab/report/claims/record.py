"""Reads claims.json: what a sweep puts to the test. Its runs are those of the fair.json beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normlab.report.runs import read_record

FILE = "claims.json"


@dataclass(frozen=True)
class Pair:
    """A data set with a network. arms: by a claim's name of an arm the name of that arm in fair.json.

    missing: why the pair was not run; it has no arms then.
    """

    name: str
    settings: str
    missing: str | None
    arms: dict[str, str]


@dataclass(frozen=True)
class Anchor:
    """A published figure, and a sentence on which of our numbers stands beside it.

    In that sentence the name of an arm or of an effect in braces stands for its numbers: `{batch at 2}`.
    """

    source: str
    figure: str
    ours: str


@dataclass(frozen=True)
class Claim:
    """What is claimed and how it is tested. effects: (name, weight by arm), of which the first one decides."""

    name: str
    claim: str
    design: str
    measure: str
    margin: float
    least_seeds: int
    effects: list[tuple[str, dict[str, float]]]
    literature: list[str]
    dissent: list[str]
    anchors: list[Anchor]
    pairs: list[Pair]


def has_claims(folder: Path) -> bool:
    return (folder / FILE).is_file()


def read_claims(folder: Path) -> tuple[str, list[Claim]]:
    """The form, short or long, and the claims. Raises ConfigError where the file is damaged, or of a newer version."""
    return read_record(folder / FILE, _laboratory)


def _laboratory(content: dict[str, Any]) -> tuple[str, list[Claim]]:
    claims = [_claim(each) for each in content["claims"]]
    if "format" not in content or not claims:
        raise ValueError("no claims")
    return str(content["form"]), claims


def _claim(content: dict[str, Any]) -> Claim:
    claim = Claim(
        name=str(content["name"]),
        claim=str(content["claim"]),
        design=str(content["design"]),
        measure=str(content["measure"]),
        margin=float(content["margin"]),
        least_seeds=int(content["least_seeds"]),
        effects=[(str(each["name"]), _weights(each["weights"])) for each in content["effects"]],
        literature=_lines(content["literature"]),
        dissent=_lines(content["dissent"]),
        anchors=[Anchor(str(each["source"]), str(each["figure"]), str(each["ours"])) for each in content["anchors"]],
        pairs=[_pair(each) for each in content["pairs"]],
    )
    arms = {arm for _, weights in claim.effects for arm in weights}
    weigh = bool(claim.effects) and all(any(weights.values()) for _, weights in claim.effects)
    known = all(arms <= pair.arms.keys() for pair in claim.pairs if pair.missing is None)
    if not (weigh and known and claim.margin > 0):
        raise ValueError(f"{claim.name} has effects without arms, or no margin")
    return claim


def _weights(content: dict[str, Any]) -> dict[str, float]:
    return {str(arm): float(weight) for arm, weight in content.items()}


def _lines(content: Sequence[Any]) -> list[str]:
    return [str(line) for line in content]


def _pair(content: dict[str, Any]) -> Pair:
    missing = content["missing"]
    return Pair(
        name=str(content["name"]),
        settings=str(content["settings"]),
        missing=None if missing is None else str(missing),
        arms={} if missing is not None else {str(own): str(arm) for own, arm in content["arms"].items()},
    )
