"""What the section on tuning shows of each arm."""

from collections.abc import Sequence
from dataclasses import dataclass

from normlab.report.fair.space import numbers_of, only_key
from normlab.report.fair.standing import Standing
from normlab.report.fair.sweep import Trial, scores
from normlab.report.fair.tuning import Width, expected_best, width
from normlab.report.wording import NOTHING, number


@dataclass(frozen=True)
class Curve:
    """An arm's trials over one key. points: (value, score, the score in words), by value; None for a lost trial.

    line: whether the points are a curve, as the arm tunes nothing else.
    """

    name: str
    points: list[tuple[float, float | None, str]]
    line: bool

    @property
    def known(self) -> list[float]:
        return [score for _, score, _ in self.points if score is not None]


def curves(standings: Sequence[Standing], key: str, places: int) -> list[Curve]:
    """The trials of each arm that tunes the key; those that have not ended are left out."""
    made = []
    for standing in standings:
        if numbers_of(standing.arm, key) is None:
            continue
        ended = _ended(standing.arm.trials)
        points = [
            (float(trial.point[key]), score, "diverged" if score is None else number(score, places))
            for trial, score in zip(ended, scores(ended), strict=True)
        ]
        points.sort(key=lambda point: point[0])
        made.append(Curve(standing.configuration.label, points, only_key(standing.arm) == key))
    return made


def _ended(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.lost or (trial.run is not None and trial.run.score is not None)]


def expectations(standings: Sequence[Standing], minimized: bool) -> dict[str, list[float]]:
    """The best score to expect of each number of trials, by arm. A lost trial counts as the worst score of any arm."""
    by_arm = {each.configuration.label: scores(_ended(each.arm.trials)) for each in standings}
    known = [score for values in by_arm.values() for score in values if score is not None]
    if not known:
        return {}
    worst = max(known) if minimized else min(known)
    filled = {arm: [worst if value is None else value for value in values] for arm, values in by_arm.items()}
    return {arm: expected_best(values, minimized) for arm, values in filled.items() if len(values) > 1}


def widths(standings: Sequence[Standing], minimized: bool) -> dict[str, tuple[str, Width]]:
    """The key and the range of its good values of each arm that tunes one number alone, by arm."""
    found = {}
    for standing in standings:
        key, trials = only_key(standing.arm), _ended(standing.arm.trials)
        if key is None or (space := numbers_of(standing.arm, key)) is None:
            continue
        values = [float(trial.point[key]) for trial in trials]
        if made := width(values, scores(trials), (space.low, space.high), minimized):
            found[standing.configuration.label] = key, made
    return found


def octaves(range_: Width) -> str:
    """`1.2 to 2.9`: the least and the most that the range may be wide, in doublings; rough, as points are few."""
    if range_.outer[0] <= 0:
        return NOTHING
    least, most = range_.octaves()
    ends = [word for word, reached in (("lower", range_.open_low), ("upper", range_.open_high)) if reached]
    return f"{least:.1f} to {most:.1f}" + (f", up to the {' and '.join(ends)} end of the space" if ends else "")
