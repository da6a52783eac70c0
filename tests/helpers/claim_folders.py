"""Folders of a laboratory's sweeps that were never run: claims.json, fair.json and the runs that they name."""

import json
from itertools import count

from helpers.fair_folders import KEY, SPACE, make_job, rates

SAYING_NOTHING = {"val": 0.11, "test": 0.1}  # what always saying the most frequent class scores
DIVERGED = {"error": "FloatingPointError: train/loss is nan in epoch 0, step 3"}


def claim(name, values, *effects, measure="accuracy", margin=0.02, least_seeds=5, missing=None, **changes):
    """A claim for `make_laboratory`.

    values: {pair: {arm: measures}}, a measure for each fresh run, None for one that diverged; of an arm of which every
    trial diverged, None in place of the list. effects: weights by arm. missing: {pair: why it was not run}.
    """
    content = {"name": name, "claim": f"What {name} says.", "design": f"How {name} is tested.", "measure": measure}
    content |= {"margin": margin, "least_seeds": least_seeds, "literature": [], "dissent": [], "anchors": []}
    content["effects"] = [{"name": f"effect {n} of {name}", "weights": each} for n, each in enumerate(effects, 1)]
    pairs = [
        {
            "name": pair,
            "settings": f"data={pair}",
            "missing": None,
            "arms": {arm: f"{name} {pair}: {arm}" for arm in arms},
        }
        for pair, arms in values.items()
    ]
    pairs += [{"name": pair, "settings": "", "missing": why, "arms": {}} for pair, why in (missing or {}).items()]
    return content | {"pairs": pairs} | changes, values


def make_laboratory(path, *claims, seeds=5, trials=2, form="short"):
    """A sweep of claims, each arm with so many trials; arms with fewer values than seeds have runs to come."""
    path.mkdir(parents=True)
    arms, numbers = [], count()
    for content, values in claims:
        for pair in content["pairs"]:
            for own, name in pair["arms"].items():
                made = values[pair["name"]][own]
                arms.append(_arm(path, numbers, name, pair["name"], own, content["measure"], made, trials))
    fair = {"format": 1, "keys": ["norm"], "trials": trials, "seeds": seeds, "budget": "trials", "seconds": None}
    fair |= {"over": "seed", "sampler": "quasi_random", "pruner": "none", "score": "val/acc", "score_mode": "max"}
    (path / "fair.json").write_text(json.dumps(fair | {"arms": arms}))
    written = {"format": 1, "form": form, "claims": [content for content, _ in claims]}
    (path / "claims.json").write_text(json.dumps(written))
    return path


def _arm(path, numbers, name, pair, own, measure, values, trials):
    typed = ["model=net", f"data={pair}", f"norm={own.replace(' ', '_')}"]
    tuned = []
    for rate in rates(trials):
        job = _job(path, next(numbers), [*typed, f"{KEY}={rate}", "seed=0"], None if values is None else 0.9, {})
        tuned.append({"job": job, "point": {KEY: rate}})
    fresh = []
    for seed, value in enumerate(values or (), 1):
        line = [*typed, f"{KEY}={rates(trials)[0]}", f"seed={seed}"]
        fresh.append({"job": _job(path, next(numbers), line, value, {measure: value}), "replicate": seed})
    best = None if values is None else {"trial": 0} | tuned[0]
    arm = {"name": name, "settings": {"data": pair, "norm": own}, "space": SPACE, "trials": tuned, "tuned": best}
    return arm | {"fresh": fresh, "refused": None}


def _job(path, number, typed, value, measures):
    folder = path / str(number)
    make_job(folder, typed, None if value is None else 0.9, {} if value is None else {"test/acc": 0.9})
    result = json.loads((folder / "result.json").read_text()) | {"config_hash": f"hash{number}"}
    result |= DIVERGED if value is None else {"majority": SAYING_NOTHING}
    (folder / "result.json").write_text(json.dumps(result))
    if value is not None and measures:
        written = {"config_hash": f"hash{number}", "values": measures}
        (folder / "measured.json").write_text(json.dumps(written))
    return number
