"""`test=false` leaves the test part alone."""

import pytest

from normlab import compose
from normlab.folder.identity import config_hash
from normlab.tasks.classify import Classify


def test_nothing_is_tested_and_the_run_is_another(quick_run, monkeypatch):
    def tested(*_):
        raise LookupError("a test batch was looked at")

    monkeypatch.setattr(Classify, "test_step", tested)
    with pytest.raises(LookupError):
        quick_run("model=net", "data=wine")
    result = quick_run("model=net", "data=wine", "test=false", folder="other")
    assert result.score is not None
    assert {name.partition("/")[0] for name in result.metrics} == {"train", "val"}
    assert config_hash(compose(["test=false"])) != config_hash(compose([])) == config_hash(compose(["test=true"]))
