"""What is said of a precision that the processor has no instructions for."""

import logging
import platform
from pathlib import Path

import pytest

from normlab import compose, run
from normlab.errors import ConfigError
from normlab.runner import precision

WINE = ["model=net", "data=wine", "trainer=cpu", "trainer.max_epochs=1", "logger=none"]


def test_float16_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="16-mixed needs a GPU; on a processor use trainer.precision=bf16-mixed"):
        run(compose([*WINE, "trainer.precision=16-mixed"]), folder=tmp_path / "run")


@pytest.mark.parametrize("has", [True, False])
@pytest.mark.parametrize("kind", ["bf16-mixed", "bf16-true", "32-true"])
def test_slow_bfloat16_is_said_where_it_is_slow(has, kind, monkeypatch, caplog):
    monkeypatch.setattr(precision, "has_bfloat16", lambda: has)
    with caplog.at_level(logging.WARNING, "normlab"):
        precision.say_where_slow(kind)
    assert ("no instructions for bfloat16" in caplog.text) == (kind != "32-true" and not has)


def test_a_run_says_it_once(monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "has_bfloat16", lambda: False)
    run(compose([*WINE, "trainer.precision=bf16-mixed"]), folder=tmp_path / "run")
    assert (tmp_path / "run" / "train.log").read_text().count("no instructions for bfloat16") == 1


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads the flags of an x86 processor")
def test_the_processor_is_asked():
    flags = {*Path("/proc/cpuinfo").read_text().split()}
    if "avx512_bf16" in flags:
        assert precision.has_bfloat16()
    if "avx512f" not in flags:
        assert not precision.has_bfloat16()
