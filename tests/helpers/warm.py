"""A process that has imported what `train.py` needs, and forks one for each command or function that it is asked for.

A fresh process would import torch and Lightning each time, which takes several seconds. A forked one is as fresh but
for that: the `__main__` of a command is train.py, and its folder, environment, arguments and output are its own. A fork
of the process that runs the tests would not be: what earlier tests have left there, such as threads, may break it.
"""

import atexit
import json
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from helpers.cases import ROOT

TRAIN = str(ROOT / "train.py")


class Forked:
    """A process that the server has forked; one at a time is there."""

    def __init__(self, **request: Any):
        self.place = TemporaryDirectory()
        self.outputs = [f"{self.place.name}/out", f"{self.place.name}/err"]
        self.server = _server()
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps(request | {"environment": dict(os.environ), "outputs": self.outputs}) + "\n")
        self.server.stdin.flush()
        self.pid = self._answer()

    def wait(self) -> "subprocess.CompletedProcess[str]":
        """Its exit code and what it printed, once it has ended."""
        code = self._answer()
        with self.place:
            said, errors = (Path(file).read_text() for file in self.outputs)
        return subprocess.CompletedProcess([], code, said, errors)

    def _answer(self) -> int:
        assert self.server.stdout is not None
        return int(self.server.stdout.readline())


def train(overrides: Sequence[str], cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Runs `python train.py` with these overrides in a folder, as subprocess.run would."""
    return Forked(arguments=overrides, cwd=str(cwd)).wait()


def call(function: str, *values: Any) -> Forked:
    """Calls a function of a module, such as helpers.dying.killed_run, with values that JSON takes."""
    return Forked(function=function, values=values, cwd=os.getcwd())


@cache
def _server() -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", "from helpers.warm import serve; serve()"]
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    # Threads are counted when torch is imported, and so the test that comes first would decide for all.
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    atexit.register(server.communicate)  # which closes its input, and it ends
    return server


def serve() -> None:
    """Answers each request with the number of the process that it forks for it, and then with its exit code."""
    import normlab.app
    import normlab.runner.run  # noqa: F401  # with torch and Lightning

    answers = os.dup(1)
    for line in sys.stdin:
        process = os.fork()
        if not process:
            os.close(answers)
            code: Any = 0
            try:
                _become(json.loads(line))
            except SystemExit as end:
                code = end.code
            if isinstance(code, str):
                print(code, file=sys.stderr)
            _leave(1 if isinstance(code, str) else code or 0)
        os.write(answers, f"{process}\n".encode())
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        os.write(answers, f"{code}\n".encode())


def _leave(code: int) -> None:
    """Ends this process as Python does, but for taking all modules apart, which would take two seconds."""
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _become(request: dict[str, Any]) -> None:
    """Does in this process what is asked for; its end is that of the process."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for number, file in enumerate([os.devnull, *request["outputs"]]):
        opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    if "function" in request:
        module, _, name = request["function"].rpartition(".")
        getattr(import_module(module), name)(*request["values"])
        return
    sys.argv = [TRAIN, *request["arguments"]]
    sys.path[0] = str(ROOT)
    runpy.run_path(TRAIN, run_name="__main__")
