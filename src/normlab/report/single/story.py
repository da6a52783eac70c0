"""A run as its page tells of it: its files, and what was seen of its weights."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from normlab.folder.identity import LENGTH
from normlab.report.curves import Curve
from normlab.report.runs import Run, read_curve, read_json
from normlab.report.settings import option
from normlab.report.single.answers import Answers, Look

PARTS = {"train": "training", "val": "validation", "test": "test"}
GIVEN = "normlab.data.common.given"  # the data of a run that was given it from Python


@dataclass(frozen=True)
class Story:
    """A run and what was seen of it. checkpoint: the file whose weights were looked at; None: none was there."""

    run: Run
    seen: Look
    checkpoint: Path | None

    @property
    def answers(self) -> Answers | None:
        return self.seen.answers

    @property
    def part(self) -> str:
        return part(self.run) if self.answers is None else self.answers.part

    @cached_property
    def result(self) -> dict[str, Any]:
        """result.json; empty where it cannot be read."""
        content = read_json(self.run.folder / "result.json")
        return content if isinstance(content, dict) else {}

    @cached_property
    def starts(self) -> list[dict[str, Any]]:
        """environment.json, an entry for each start; empty where it cannot be read."""
        content = read_json(self.run.folder / "environment.json")
        return [entry for entry in content if isinstance(entry, dict)] if isinstance(content, list) else []

    @cached_property
    def score_curve(self) -> Curve:
        """The score over the epochs."""
        return read_curve(self.run, self.run.score_name) if self.run.score_name else []

    @property
    def epochs(self) -> int:
        """How many epochs have ended."""
        return max((epoch + 1 for epoch, _ in self.score_curve), default=0)

    @property
    def planned(self) -> int | None:
        """How many epochs it was to train, where that was said."""
        key = LENGTH.partition(".")[2]
        trainer = self.run.config.get("trainer")
        length = trainer.get(key) if isinstance(trainer, dict) else None
        return length if isinstance(length, int) and length > 0 else None

    @cached_property
    def best(self) -> int | None:
        """The best epoch, from 0, as result.json has it; else of the curve, and of equal ones the latest."""
        noted = self.result.get("best")
        if isinstance(noted, dict) and isinstance(noted.get("epoch"), int):
            return noted["epoch"]
        if not self.score_curve:
            return None
        sign = -1 if self.run.score_mode == "min" else 1
        return max(self.score_curve, key=lambda point: (sign * point[1], point[0]))[0]

    @property
    def made(self) -> str:
        """`net with norm=batch on wine`."""
        model, norm, data = (option(self.run, group) for group in ("model", "norm", "data"))
        if given(self.run):
            data = "data given from Python"
        return f"{model or 'A network'}{f' with norm={norm}' if norm else ''} on {data or 'its data'}"


def part(run: Run) -> str:
    """The part that a run is measured on: test, or val where its data has no test part."""
    has_test = "test" in run.samples or any(name.startswith("test/") for name in run.metrics)
    return "test" if has_test or not run.samples else "val"


def given(run: Run) -> bool:
    """Whether the data was given from Python."""
    data = run.config.get("data")
    return isinstance(data, dict) and str(data.get("_target_")).startswith(GIVEN)
