"""Jobs of a sweep side by side: each on a GPU of its own."""

import json

import pytest
from helpers.processes import train

from normlab.sweeps.launchers.gpus import visible

pytestmark = pytest.mark.gpu(devices=2)


def test_each_job_sees_one_gpu_and_all_gpus_are_used(tmp_path):
    gpus = visible()
    seeds = ",".join(map(str, range(2 * len(gpus))))
    settings = ["model=net", "data=wine", "trainer=gpu", "trainer.max_epochs=20", "logger=none"]
    train("-m", "hydra/launcher=joblib", *settings, f"seed={seeds}", "name=s", cwd=tmp_path)
    starts = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/s/*/environment.json")]
    assert [len(start["gpus"]) for (start,) in starts] == [1] * 2 * len(gpus)
    assert {start["visible_gpus"] for (start,) in starts} == set(gpus)
