"""How often the report claims what is not so, and what it misses.  python benchmarks/claims.py [--quick]

Sweeps are made up: scores of configurations × seeds that are all alike, in several kinds of noise, are put through the
functions that the page calls. A false claim is a sweep in which any configuration is told from the best one. Beside it
stands the report's first procedure: paired t tests of the best against each other one, with Bonferroni's correction.
Parts of one data set depend on each other, so they are made by a real learner: nearest centroids of two halves of the
features, which are alike. Fair sweeps are of learners with a curve over the learning rate: see surrogates.py.
"""

import argparse
import math
from collections.abc import Callable
from itertools import product

import numpy as np
from scipy.special import stdtrit
from surrogates import DEFAULTS, KINDS, UNSEEN, rates

from normlab.report.differences import behind

CELLS = ((3, 3), (10, 3), (10, 5))  # configurations × seeds of the short form
LONG = ((2, 2), (3, 3), (5, 5), (10, 3), (10, 5), (20, 2), (20, 5), (20, 10))
SAMPLES, FEATURES = 120, 12  # the size of the learner's data set
KINDS_OF_CHOICE = "gentle slopes, a plateau of 0 to 0.5"
HIGHEST, AVERAGE = {"averaged": False, "luck": 0.0}, {"averaged": True, "luck": 0.0}
MORE = (24, 16)  # trials and fresh seeds of a sweep that costs nearly half as much again
CHOICES = {  # how the tuned trial is chosen, the trials and the fresh seeds of each arm
    "highest score": (HIGHEST, 10, 10),
    "highest score, more seeds": (HIGHEST, 10, 20),
    "highest score, more trials": (HIGHEST, 32, 10),
    "average over neighbours": (AVERAGE, 10, 10),
    "average over neighbours, more of both": (AVERAGE, DEFAULTS["trials"], DEFAULTS["seeds"]),
    "the same with the allowance for luck, as the page": ({}, DEFAULTS["trials"], DEFAULTS["seeds"]),
}

Noise = Callable[[np.random.Generator, int, int], tuple[np.ndarray, float]]
Procedure = Callable[[np.ndarray, int, float, float], list[bool]]


def gaussian(chance: np.random.Generator, count: int, blocks: int) -> tuple[np.ndarray, float]:
    """Scores (count, blocks), and the least variance of one."""
    return chance.normal(size=(count, blocks)), 0.0


def heavy_tails(chance: np.random.Generator, count: int, blocks: int) -> tuple[np.ndarray, float]:
    return chance.standard_t(3, size=(count, blocks)), 0.0


def seed_effects(chance: np.random.Generator, count: int, blocks: int) -> tuple[np.ndarray, float]:
    return chance.normal(size=(count, blocks)) + chance.normal(0, 3, blocks), 0.0


def unstable(times: float) -> Noise:
    def noise(chance: np.random.Generator, count: int, blocks: int) -> tuple[np.ndarray, float]:
        scores = chance.normal(size=(count, blocks))
        scores[0] *= times
        return scores, 0.0

    return noise


def accuracies(samples: int) -> Noise:
    def noise(chance: np.random.Generator, count: int, blocks: int) -> tuple[np.ndarray, float]:
        rate = chance.choice([0.5, 0.9, 0.97])
        return chance.binomial(samples, rate, size=(count, blocks)) / samples, 1 / samples**2 / 12

    return noise


NOISES: dict[str, Noise] = {
    "Gaussian": gaussian,
    "t, 3 degrees of freedom": heavy_tails,
    "seed effects": seed_effects,
    "accuracies of 27 samples": accuracies(27),
    "accuracies of 270 samples": accuracies(270),
    "accuracies of 10,000 samples": accuracies(10_000),
    "one with 3 × the spread": unstable(3),
    "one with 5 × the spread": unstable(5),
}


def ours(scores: np.ndarray, best: int, floor: float = 0.0, overlap: float = 0.0) -> list[bool]:
    """Whether each configuration is told from the best one."""
    return [found.told_apart for found in behind(scores, best, floor, overlap)]


def first(scores: np.ndarray, best: int, floor: float = 0.0, overlap: float = 0.0) -> list[bool]:
    """The report's first procedure; neither a floor nor an overlap was known to it."""
    count, blocks = scores.shape
    pairs = scores[best] - scores
    mean, error = pairs.mean(axis=1), pairs.std(axis=1, ddof=1) / math.sqrt(blocks)
    bound = stdtrit(blocks - 1, 1 - 0.025 / (count - 1))
    return [bool(mean[place] > bound * error[place]) and place != best for place in range(count)]


def false_claims(noise: str, count: int, blocks: int, sweeps: int, procedure: Procedure = ours) -> float:
    """The share of sweeps of equal configurations in which any is told from the best."""
    chance, claims = np.random.default_rng([count, blocks]), 0
    for _ in range(sweeps):
        scores, floor = NOISES[noise](chance, count, blocks)
        claims += any(procedure(scores, int(scores.mean(axis=1).argmax()), floor, 0.0))
    return claims / sweeps


def told_from_all(count: int, blocks: int, sweeps: int, lead: float = 3.0, procedure: Procedure = ours) -> float:
    """The share of sweeps in which a leader by so many standard deviations is told from all others."""
    chance, told = np.random.default_rng([count, blocks]), 0
    for _ in range(sweeps):
        scores = chance.normal(size=(count, blocks))
        scores[0] += lead
        best = int(scores.mean(axis=1).argmax())
        told += best == 0 and sum(procedure(scores, best, 0.0, 0.0)) == count - 1
    return told / sweeps


def learned(chance: np.random.Generator, folds: bool, parts: int, seeds: int) -> np.ndarray:
    """Validation accuracies (2, parts, seeds) of two equal learners on parts of one data set that was drawn anew."""
    classes = np.arange(SAMPLES) % 2
    data = chance.normal(size=(SAMPLES, FEATURES)) + 0.35 * (2 * classes[:, None] - 1)
    size = SAMPLES // 5
    order = chance.permutation(SAMPLES)
    scores = np.empty((2, parts, seeds))
    for part in range(parts):
        if not folds:
            order = chance.permutation(SAMPLES)
        start = part * size if folds else 0
        chosen = np.isin(np.arange(SAMPLES), order[start : start + size])
        for seed in range(seeds):
            for learner in range(2):
                own = learner * FEATURES // 2 + chance.permutation(FEATURES // 2)[:4]
                train, labels = data[~chosen][:, own], classes[~chosen]
                low, high = train[labels == 0].mean(axis=0), train[labels == 1].mean(axis=0)
                said = (data[chosen][:, own] - (low + high) / 2) @ (high - low) > 0
                scores[learner, part, seed] = (said == classes[chosen]).mean()
    return scores


def false_claims_of_parts(folds: bool, parts: int, seeds: int, sweeps: int) -> tuple[float, float, float]:
    """The share of claims: each run taken for independent, parts taken for independent, and as the report does."""
    chance, claims = np.random.default_rng([folds, parts, seeds]), np.zeros(3)
    floor = 1 / (SAMPLES // 5) ** 2 / 12
    for _ in range(sweeps):
        runs = learned(chance, folds, parts, seeds)
        means = runs.mean(axis=2)
        best = int(means.mean(axis=1).argmax())
        flat = runs.reshape(2, -1)
        claims += [any(ours(flat, best, floor)), any(ours(means, best, floor)), any(ours(means, best, floor, 1 / 4))]
    return tuple(claims / sweeps)


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f}"


def _print_claims(sweeps: int, cells: tuple[tuple[int, int], ...]) -> None:
    sizes = [f"{count} × {blocks}" for count, blocks in cells]
    print(f"False claims, % of {sweeps} sweeps of equal configurations (× seeds); first procedure → ours\n")
    print(f"| noise | {' | '.join(sizes)} |\n| --- |{' --- |' * len(cells)}")
    for noise in NOISES:
        pairs = [[false_claims(noise, *cell, sweeps, procedure) for procedure in (first, ours)] for cell in cells]
        print(f"| {noise} | {' | '.join(' → '.join(map(_percent, pair)) for pair in pairs)} |", flush=True)
    for lead in (3.0, 6.0):
        pairs = [[told_from_all(*cell, sweeps, lead, procedure) for procedure in (first, ours)] for cell in cells]
        told = " | ".join(" → ".join(map(_percent, pair)) for pair in pairs)
        print(f"| *told from all others: a lead of {lead:.0f} sd* | {told} |", flush=True)


def _print_parts(sweeps: int) -> None:
    print(f"\nFalse claims, % of {sweeps} sweeps of two equal learners on parts of one data set\n")
    print("| parts | runs taken for independent | parts taken for independent | ours |\n| --- | --- | --- | --- |")
    for folds, parts, seeds in ((True, 5, 1), (True, 5, 3), (False, 5, 3), (False, 10, 1)):
        rates = false_claims_of_parts(folds, parts, seeds, sweeps)
        name = f"{parts} {'folds' if folds else 'splits'} × {seeds} seed{'s' if seeds > 1 else ''}"
        print(f"| {name} | {' | '.join(map(_percent, rates))} |", flush=True)


def _print_fair(sweeps: int) -> None:
    trials, seeds = DEFAULTS["trials"], DEFAULTS["seeds"]
    print(f"\nClaims of four arms, % of {sweeps} sweeps of {trials} trials and {seeds} fresh seeds\n")
    heads = ["curves over the rate", "a leader by 2 sd is told from all others", "one seed: it is on top"]
    heads += ["equal arms are told apart", "equal arms of unlike curves", "one seed: the lead that it shows, sd"]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for kind in KINDS:
        leading, equal, unlike = (rates(kind, *each, sweeps) for each in ((2.0, False), (0.0, True), (0.0, False)))
        cells = [leading.told, leading.named, equal.claimed, unlike.claimed]
        print(f"| {kind} | {' | '.join(map(_percent, cells))} | {equal.shown:.2f} |", flush=True)
    print(f"\nThe same on curves by which nothing was chosen, and with more trials and seeds, % of {sweeps} sweeps\n")
    heads = ["curves over the rate", "trials", "fresh seeds", heads[1], heads[3], heads[4]]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for kind, sizes in product(UNSEEN, ((trials, seeds), MORE)):
        found = [rates(kind, *each, sweeps, *sizes) for each in ((2.0, False), (0.0, True), (0.0, False))]
        cells = [found[0].told, found[1].claimed, found[2].claimed]
        print(f"| {kind} | {' | '.join([*map(str, sizes), *map(_percent, cells)])} |", flush=True)
    print(f"\nThe same on {KINDS_OF_CHOICE}, % of {sweeps} sweeps\n")
    heads = ["choice of the tuned trial", "trials", "fresh seeds", "told from all others", "equal arms are told apart"]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for name, (how, *sizes) in CHOICES.items():
        leading, equal = (rates(KINDS_OF_CHOICE, lead, not lead, sweeps, *sizes, **how) for lead in (2.0, 0.0))
        cells = [*map(str, sizes), _percent(leading.told), _percent(equal.claimed)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer sweeps, of fewer sizes")
    quick = parser.parse_args().quick
    _print_claims(100 if quick else 2000, CELLS if quick else LONG)
    _print_parts(50 if quick else 1000)
    _print_fair(30 if quick else 1000)


if __name__ == "__main__":
    main()
