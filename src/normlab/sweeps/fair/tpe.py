"""`fair.sampler=tpe`: the points of an arm's later trials are chosen by the scores of its earlier ones."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from normlab.config.arms import Arm
from normlab.sweeps.fair.arm_runs import NextPoint
from normlab.sweeps.fair.points import points, shortened
from normlab.sweeps.fair.run import Run
from normlab.sweeps.study import distribution

FIRST = 5  # trials of each arm at the quasi-random points, which all arms share; scores choose the others
AT_A_TIME = 3  # trials of an arm that follow scores: a cluster takes every job that there is, and none would see any


def tpe(arm: Arm, earlier: Sequence[Mapping[str, Any]]) -> NextPoint:
    """Chooses an arm's points by Optuna's tree-structured Parzen estimators, which see the trials of this arm alone.

    earlier: the points of the trials that were begun in an earlier start, which stay. Each choice has a seed of its own
    and depends on the trials that have ended by then: with one worker a sweep that was stopped goes on as if it had not
    been. It waits for the first trials, and while AT_A_TIME others run.
    """
    first = [*islice(points(arm.space), FIRST)]

    def next_point(trials: Sequence[Run]) -> Mapping[str, Any] | None:
        number = len(trials)
        if number < len(earlier):
            return earlier[number]
        if number < len(first):
            return first[number]
        are_over = [run.over for run in trials]
        waits = not all(are_over[: len(first)]) or are_over.count(False) >= AT_A_TIME
        return None if waits else _chosen(arm, trials)

    return next_point


def _chosen(arm: Arm, trials: Sequence[Run]) -> dict[str, Any]:
    import numpy as np
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = int(np.random.SeedSequence([len(trials)]).generate_state(1)[0])
    minimized = any(run.result.get("score_mode") == "min" for run in trials)
    study = optuna.create_study(
        direction="minimize" if minimized else "maximize",
        sampler=optuna.samplers.TPESampler(n_startup_trials=FIRST, seed=seed),
    )
    spaces = {key: distribution(values) for key, values in arm.space.items()}
    scores = [run.score for run in trials if run.score is not None]
    for run in trials:
        if run.over and scores:  # a trial without a score counts as the worst, so that its neighbourhood is left
            worst = max(scores) if minimized else min(scores)
            value = worst if run.score is None else run.score
            study.add_trial(optuna.create_trial(params=run.point, distributions=spaces, value=value))
    return {key: shortened(arm.space[key], value) for key, value in study.ask(spaces).params.items()}
