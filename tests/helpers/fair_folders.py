"""Folders of fair sweeps that were never run: fair.json and the runs that it names."""

import json

import numpy as np

KEY = "optimizer.lr"
SPACE = {KEY: "tag(log,interval(0.001,1))"}
SAMPLES = {"train": 2000, "val": 500, "test": 1000}


def rates(count):
    """So many learning rates, evenly spread over the space on a log scale."""
    return [float(f"{rate:.4g}") for rate in np.geomspace(0.001, 1, 2 * count + 1)[1::2]]


def make_fair(
    path, trials, fresh, *typed, keys=("norm",), spaces=None, refused=None, over="seed", mode="max", **changes
):
    """A fair sweep. Its arms are tuples of the values of `keys`, or the value of the only one.

    trials, fresh: the scores of each arm's tuning and fresh runs, None for a run that failed; those of `fresh` are of
    the test part. spaces: an arm's own space in place of SPACE. refused: {arm: reason}. mode: the better end of the
    score, which is called loss where it is min. changes: keys of fair.json.
    """
    path.mkdir(parents=True)
    count, arms = 0, []
    name, better = ("acc", max) if mode == "max" else ("loss", min)
    for arm, scores in trials.items():
        values = arm if isinstance(arm, tuple) else (arm,)
        settings = dict(zip(keys, values, strict=True))
        chosen = [f"{key}={value}" for key, value in settings.items()]
        own, runs, points = fresh.get(arm, []), [], rates(len(scores))
        for score, rate in zip(scores, points, strict=True):
            line = ["model=net", "data=wine", *chosen, f"{KEY}={rate}", "seed=0", *typed]
            make_job(path / str(count), line, score, {}, mode)
            runs.append({"job": count, "point": {KEY: rate}})
            count += 1
        known = [place for place, score in enumerate(scores) if score is not None]
        best = better(known, key=lambda place: scores[place], default=None)
        again = []
        for replicate, score in enumerate(own, 1):
            line = ["model=net", "data=wine", *chosen, f"{KEY}={points[best]}", f"{over}={replicate}", *typed]
            tested = {} if score is None else {f"test/{name}": score}
            make_job(path / str(count), line, None if score is None else scores[best], tested, mode)
            again.append({"job": count, "replicate": replicate})
            count += 1
        tuned = None if best is None else {"trial": best} | runs[best]
        arms.append(
            {"name": " ".join(chosen), "settings": settings, "space": (spaces or {}).get(arm, SPACE), "trials": runs}
            | {"tuned": tuned, "fresh": again, "refused": None}
        )
    for arm, reason in (refused or {}).items():
        settings = dict(zip(keys, arm if isinstance(arm, tuple) else (arm,), strict=True))
        label = " ".join(f"{key}={value}" for key, value in settings.items())
        arms.append({"name": label, "settings": settings, "space": SPACE, "trials": [], "tuned": None, "fresh": []})
        arms[-1]["refused"] = reason
    content = {"format": 1, "keys": list(keys), "trials": max(map(len, trials.values())), "budget": "trials"}
    content |= {"seeds": max(map(len, fresh.values())), "seconds": None, "over": over, "sampler": "quasi_random"}
    content |= {"pruner": "none", "score": f"val/{name}", "score_mode": mode, "arms": arms}
    (path / "fair.json").write_text(json.dumps(content | changes))
    return path


def make_job(path, typed, score, metrics, mode="max"):
    """A run folder with the keys that a report of a fair sweep reads; `make_run` composes a whole configuration."""
    values = dict(line.split("=", 1) for line in typed)
    data = {"split_seed": int(values.get("data.split_seed", 0)), "val_fraction": 0.2, "test_fraction": 0.2}
    config = {"action": "fit", "seed": int(values.get("seed", 0)), "data": data, "trainer": {"max_epochs": 30}}
    result = {"format": 1, "action": "fit", "status": "finished", "score": score, "metrics": metrics, "error": None}
    if score is None:
        result |= {"status": "failed", "error": "NonFiniteError: the loss is not finite"}
    result |= {"score_mode": mode, "seconds": 2.0, "parameters": 383, "samples": SAMPLES, "overrides": list(typed)}
    path.mkdir()
    (path / "config.yaml").write_text(json.dumps(config))
    (path / "metrics.csv").write_text("epoch,val/acc\n" + (f"0,{score / 2!r}\n1,{score!r}\n" if score else ""))
    (path / "result.json").write_text(json.dumps(result | {"score_name": "val/acc" if mode == "max" else "val/loss"}))
