"""A process that has imported what `train.py` needs, and forks one that runs it for each command it is asked for.

A fresh process would import torch and Lightning each time, which takes several seconds. A forked one is as fresh but
for that: its `__main__` is train.py, and its folder, environment, arguments and output are its own.
"""

import atexit
import json
import os
import runpy
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from helpers.cases import ROOT

TRAIN = str(ROOT / "train.py")
SECONDS = 300  # the longest that a command may take


def train(overrides: tuple[str, ...], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs `python train.py` with these overrides in a folder, as subprocess.run would."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with TemporaryDirectory() as place:
        outputs = [f"{place}/out", f"{place}/err"]
        request = {"arguments": overrides, "cwd": str(cwd), "environment": dict(os.environ), "outputs": outputs}
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        said, errors = (Path(file).read_text() for file in outputs)
    return subprocess.CompletedProcess([TRAIN, *overrides], code, said, errors)


@cache
def _server() -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", "from helpers.warm import serve; serve()"]
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    atexit.register(server.communicate)  # which closes its input, and it ends
    return server


def serve() -> None:
    """Answers each request with the exit code of the process that it forks for it."""
    import normlab.app
    import normlab.runner.run  # noqa: F401  # with torch and Lightning

    answers = os.dup(1)
    for line in sys.stdin:
        process = os.fork()
        if not process:
            os.close(answers)
            _become(json.loads(line))
            return
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        os.write(answers, f"{code}\n".encode())


def _become(request: dict) -> None:
    """Runs train.py in this process; its end is that of the process."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for number, file in enumerate([os.devnull, *request["outputs"]]):
        opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = [TRAIN, *request["arguments"]]
    sys.path[0] = str(ROOT)
    runpy.run_path(TRAIN, run_name="__main__")
