"""Runs that are killed or interrupted at random moments, again and again, end as one that never was."""

import os
import random
import signal
import time
from contextlib import suppress

import pytest
from helpers import warm
from helpers.folders import assert_same_run

TABLE = ["model=net", "data=wine", "data.batch_size=8", "trainer.max_epochs=6"]
IMAGES = ["model=mynet", "data=digits", "data.size=16", "data.batch_size=128", "trainer.max_epochs=3"]
RANKS = ["model=net", "data=wine", "data.batch_size=4", "trainer.max_epochs=40", "trainer=ddp_cpu"]
SHARES = [(TABLE, 9), (IMAGES, 10), (RANKS, 1)]  # each with its kills of twenty
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]


def started(overrides, folder) -> warm.Forked:
    return warm.call("helpers.dying.run_to_end", overrides, str(folder))


def killed_until_done(overrides, folder, kills, chance, seconds) -> list[int]:
    """Lets a run go on until it is done, through so many signals; returns how its processes ended."""
    ends = []
    while True:
        process = started(overrides, folder)
        if len(ends) < kills:
            time.sleep(chance.uniform(0, seconds))
            with suppress(ProcessLookupError):  # it is done
                os.kill(process.pid, chance.choice(SIGNALS))
        done = process.wait()
        ends.append(done.returncode)
        assert ends[-1] in (0, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT), (ends, done.stderr)
        if ends[-1] == 0:
            return ends


@pytest.mark.parametrize(
    "times",
    [pytest.param(10, marks=pytest.mark.slow), pytest.param(200, marks=pytest.mark.endurance)],
)
def test_killed_at_random_moments(tmp_path, times):
    chance, done = random.Random(times), 0
    warm.call("os.getpid").wait()  # the first call takes as long as the imports
    for case, (typed, share) in enumerate(SHARES):
        overrides = [*typed, "logger=none", "save_every=3steps"]
        start = time.monotonic()
        assert started(overrides, tmp_path / f"{case}").wait().returncode == 0
        seconds = time.monotonic() - start
        kills = 0
        while kills < max(1, times * share // 20):
            folder = tmp_path / f"{case}.{kills}"
            ends = killed_until_done(overrides, folder, 3, chance, seconds)
            assert_same_run(folder, tmp_path / f"{case}")
            kills += sum(end != 0 for end in ends)
        done += kills
    assert done >= times
