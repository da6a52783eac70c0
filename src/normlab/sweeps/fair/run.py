"""One run of a fair sweep, a trial or a fresh run, and what its end says."""

from dataclasses import dataclass, field
from typing import Any

from normlab.config.space import Job

DIVERGED = "FloatingPointError"  # how the error of a run begins whose loss was not finite


@dataclass
class Run:
    """A trial, or a fresh run.

    number: that of its folder. point: the tuned values. begun: whether it was handed out, in this start or an earlier
    one. over: whether it has ended. result: its result.json then.
    """

    job: Job
    number: int
    point: dict[str, Any]
    begun: bool = False
    over: bool = False
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def score(self) -> float | None:
        """The validation score of a run that has finished; None for one that diverged, failed or was pruned."""
        return self.result["score"] if self.result.get("status") == "finished" else None

    @property
    def seconds(self) -> float:
        return self.result.get("seconds") or 0.0

    @property
    def has_failed(self) -> bool:
        """Whether it ended without an answer."""
        return self.over and not is_answer(self.result)


def is_answer(result: dict[str, Any]) -> bool:
    """Whether the end of a run says something about its arm, so that it is not run again; to diverge does."""
    return result.get("status") in ("finished", "pruned") or has_diverged(result)


def has_diverged(result: dict[str, Any]) -> bool:
    return result.get("status") == "failed" and str(result.get("error")).startswith(DIVERGED)
