"""Made-up learners, for fair sweeps of which the truth is known: curves over the rate, noise, failures, plateaus.

A sweep goes the whole way: the points of a fair sweep, its choice of each arm's tuned setting, fresh runs, and what the
page says of them. Scores are in standard deviations of a single run, apart from what a seed does to all arms alike.
"""

from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import yaml

from normlab.config.options import CONF
from normlab.config.space import Numbers, Space
from normlab.report.compare import rank
from normlab.report.comparison import Configuration
from normlab.report.fair.letters import told_apart
from normlab.report.fair.standing import LUCK
from normlab.report.runs import Run
from normlab.sweeps.fair.points import points
from normlab.sweeps.tuned import tuned

ARMS = 4
LOW, HIGH = -3.0, 0.0  # the space of the learning rate, in decades
RATE = "optimizer.lr"
SPACE: Space = {RATE: Numbers(0.0, 1.0)}  # on which a rate's place lies, as the share of the way through the decades
DEFAULTS = yaml.safe_load((CONF / "train.yaml").read_text())["fair"]


@dataclass(frozen=True)
class Kind:
    """steepness: how far a score falls one decade off the plateau.

    plateau: the least and the most decades that it is wide. fall: with the square of the distance off the plateau, or
    linear; on the two sides alike, or `skewed`: linear at a quarter below and with twice the square above.
    """

    steepness: float
    plateau: tuple[float, float]
    fall: Literal["square", "linear", "skewed"] = "square"


KINDS = {
    "a plateau of 0.4 to 1.2 decades": Kind(20.0, (0.4, 1.2)),
    "gentle slopes, a plateau of 0 to 0.5": Kind(4.0, (0.0, 0.5)),
    "steep slopes, a plateau of 0 to 0.5": Kind(20.0, (0.0, 0.5)),
}

# The settings of a fair sweep were chosen by the claims on KINDS; on these they were looked at afterwards.
UNSEEN = {
    "linear slopes, a plateau of 0 to 0.8": Kind(7.2, (0.0, 0.8), "linear"),
    "gentle linear slopes, a plateau of 0.2 to 0.6": Kind(3.6, (0.2, 0.6), "linear"),
    "skewed slopes, a plateau of 0 to 0.8": Kind(12.0, (0.0, 0.8), "skewed"),
    "gentle skewed slopes, a plateau of 0.2 to 0.6": Kind(6.0, (0.2, 0.6), "skewed"),
}


@dataclass(frozen=True)
class Learners:
    """Arms, each with the middle and the width of its plateau and the rate at which half of the trainings diverge.

    These are in decades; top is the score on the plateau. Each is an array (arms, 1).
    """

    top: np.ndarray
    middle: np.ndarray
    plateau: np.ndarray
    steepness: np.ndarray
    cliff: np.ndarray
    fall: str

    def mean(self, rates: np.ndarray) -> np.ndarray:
        """The expected score at rates (arms, runs), in decades."""
        below, above = (np.maximum(0, side * (rates - self.middle) - self.plateau / 2) for side in (-1, 1))
        falls = {
            "square": (below + above) ** 2,
            "linear": below + above,
            "skewed": below / 4 + 2 * above**2,
        }
        return self.top - self.steepness * falls[self.fall]

    def run(self, chance: np.random.Generator, rates: np.ndarray) -> np.ndarray:
        """The score of a training at each rate, NaN where it diverged."""
        diverged = chance.random(rates.shape) < 1 / (1 + np.exp((self.cliff - rates) / 0.03))
        return np.where(diverged, np.nan, self.mean(rates) + chance.normal(size=rates.shape))


def learners(chance: np.random.Generator, kind: Kind, lead: float, alike: bool) -> Learners:
    """Arms of which the first is ahead by `lead` at its best rate. alike: whether their curves have the same shape."""
    size = (1 if alike else ARMS, 1)
    middle, plateau = chance.uniform(-2.2, -0.8, size), chance.uniform(*kind.plateau, size)
    steepness = kind.steepness * np.exp(chance.uniform(-0.7, 0.7, size))
    cliff = middle + plateau / 2 + chance.uniform(0.3, 0.9, size)
    top = np.where(np.arange(ARMS) == 0, lead, 0.0)[:, None]
    return Learners(top, *(np.broadcast_to(each, (ARMS, 1)) for each in (middle, plateau, steepness, cliff)), kind.fall)


@dataclass(frozen=True)
class Outcome:
    """trials: (arms, trials), the tuning scores, NaN for a lost one. apart: (arms, arms), who is told apart."""

    trials: np.ndarray
    apart: np.ndarray


def sweep(
    chance: np.random.Generator, arms: Learners, trials: int, seeds: int, averaged: bool = True, luck: float = LUCK
) -> Outcome:
    """A fair sweep. averaged: whether trials are compared by averages over neighbours, as `tuned` does."""
    places = _places(trials)
    rates = np.broadcast_to(LOW + (HIGH - LOW) * places, (ARMS, trials))
    scores = arms.run(chance, rates)
    chosen = [_chosen(places, row, averaged) for row in scores]
    settings = np.repeat(rates[np.arange(ARMS), chosen][:, None], seeds, axis=1)
    fresh = arms.run(chance, settings) + chance.normal(size=seeds)  # what a seed does to all arms alike
    return Outcome(scores, _apart(fresh, luck))


@cache
def _places(count: int) -> np.ndarray:
    """Where the points of a fair sweep lie in its space, from 0 to 1."""
    return np.array([point[RATE] for point in islice(points(SPACE), count)])


def _chosen(places: np.ndarray, scores: np.ndarray, averaged: bool) -> int:
    if not averaged:
        return int(np.where(np.isnan(scores), -np.inf, scores).argmax())
    known = [None if np.isnan(score) else float(score) for score in scores]
    return tuned(SPACE, [{RATE: place} for place in places], known) or 0


def _apart(fresh: np.ndarray, luck: float) -> np.ndarray:
    """Who is told apart by fresh runs' test scores (arms, seeds), as the page says; NaN is a lost run.

    An arm that lost one is told from none.
    """
    compared, told = told_apart(rank({}, ["arm"], [_arm(*row) for row in enumerate(fresh)], luck))
    places = [int(configuration.settings["arm"]) for configuration in compared]
    apart = np.zeros((ARMS, ARMS), dtype=bool)
    apart[np.ix_(places, places)] = told
    return apart


def _arm(number: int, scores: np.ndarray) -> Configuration:
    runs = [_run(seed, None if np.isnan(score) else float(score)) for seed, score in enumerate(scores)]
    known = {run.replicate: run.score for run in runs if run.score is not None}
    return Configuration({"arm": str(number)}, runs=runs, scores=known)


def _run(seed: int, score: float | None) -> Run:
    status = "failed" if score is None else "finished"
    return Run(Path("made-up/0"), status, score, "test/score", "max", {}, 1.0, 1, None, (), {"seed": seed})


@dataclass(frozen=True)
class Rates:
    """The shares of sweeps that claim something, and of grids of one run for each point.

    told: the first arm is told from all others. claimed: any two arms are told apart. named: the grid's highest score
    is the first arm's. shown: by how many standard deviations the grid's best arm leads its next, on average.
    """

    told: float
    claimed: float
    named: float
    shown: float


def rates(
    kind: str,
    lead: float,
    alike: bool,
    sweeps: int,
    trials: int = DEFAULTS["trials"],
    seeds: int = DEFAULTS["seeds"],
    averaged: bool = True,
    luck: float = LUCK,
) -> Rates:
    """What fair sweeps of learners of a kind claim, and beside them the grid of the same trials with one seed."""
    chance, counts = np.random.default_rng([trials, seeds, round(10 * lead)]), np.zeros(4)
    for _ in range(sweeps):
        outcome = sweep(chance, learners(chance, (KINDS | UNSEEN)[kind], lead, alike), trials, seeds, averaged, luck)
        best = np.nanmax(outcome.trials, axis=1)
        second, first = np.sort(best)[-2:]
        counts += outcome.apart[0, 1:].all(), outcome.apart.any(), best.argmax() == 0, first - second
    return Rates(*(counts / sweeps))
