"""Output that nobody reads, or that cannot be written, fails nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.cases import QUICK, ROOT, WINE, rest_slow


def broken_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def nobody(command: list[str], output: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command whose standard output is of that kind."""
    if output == "closed":
        quoted = [sys.executable, "-c", "import os, sys; os.close(1); os.execv(sys.argv[1], sys.argv[1:])", *command]
        return subprocess.run(quoted, stderr=subprocess.PIPE, text=True, cwd=cwd, timeout=300, check=False)
    sink = {"a broken pipe": broken_pipe, "a full disk": full}[output]()
    try:
        return subprocess.run(
            command, stdout=sink, stderr=subprocess.PIPE, text=True, cwd=cwd, timeout=300, check=False
        )
    finally:
        os.close(sink)


OUTPUTS = ["closed", "a broken pipe", "a full disk"]
TALK = """
from normlab.logs.streams import keep_going
keep_going()
import logging, sys
from pathlib import Path
from normlab.logs import logging_to
file = open("own", "w")
with logging_to(Path("log")):
    for number in range(10000):
        print(f"line {number}")
        logging.getLogger("normlab").info(f"message {number}")
        sys.stdout.flush()
file.write("this alone")
"""


@pytest.mark.parametrize("output", rest_slow(OUTPUTS, lambda case: case[0] == "a broken pipe"))
def test_messages_are_lost_and_nothing_else(output, tmp_path):
    done = nobody([sys.executable, "-c", TALK], output, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "own").read_text() == "this alone"  # closed, the place of the output may be taken by a file
    assert len((tmp_path / "log").read_text().splitlines()) == 10000


def test_what_is_read_arrives_whole_and_in_order(tmp_path):
    done = subprocess.run([sys.executable, "-c", TALK], cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = [line for number in range(10000) for line in (f"line {number}", f"message {number}")]
    assert done.stdout.splitlines() == expected


@pytest.mark.parametrize("output", ["closed", pytest.param("a broken pipe", marks=pytest.mark.slow)])
def test_the_help_without_a_reader(output, tmp_path):
    done = nobody([sys.executable, str(ROOT / "train.py"), "--help"], output, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("settings", [[], ["trainer=ddp_cpu", "trainer.limit_train_batches=2"]])
def test_a_run_and_its_report_without_a_reader(settings, tmp_path):
    command = [*QUICK, *WINE, "data.batch_size=16", *settings, "trainer.max_epochs=2", "name=a"]
    done = nobody([sys.executable, str(ROOT / "train.py"), *command], "a broken pipe", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "outputs" / "a" / "result.json").read_text())["status"] == "finished"
    report = [sys.executable, "-m", "normlab.report", "outputs/a", "--out", "report"]
    done = nobody(report, "a broken pipe", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "report" / "report.html").is_file()


def test_a_name_that_is_no_utf8_is_told_all_the_same(tmp_path):
    talk = TALK.replace("range(10000)", "range(1)").replace("{number}", r"caf\udce9 é")
    done = subprocess.run([sys.executable, "-c", talk], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["line caf\\udce9 é", "message caf\\udce9 é"]
    assert "message caf\\udce9 é" in (tmp_path / "log").read_text()
