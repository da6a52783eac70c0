"""How the launcher tells apart what ended a run, and what SIGTERM does to one, without a process that trains."""

import multiprocessing
import os
import re
import signal
import time

import pytest
from helpers.cases import QUICK, WINE, rest_slow
from helpers.folders import result_of
from lightning import Callback

from normlab import compose, run
from normlab.data.wine import Wine
from normlab.distributed.interrupts import interruptible
from normlab.distributed.signs import Sign, save
from normlab.errors import LostError, PeerError, WaitError
from normlab.runner import launch
from normlab.runner.launch import KilledError, Launcher
from normlab.runner.launched import save_error

# What a process does; these are no functions of ours, so that it starts without torch.
ENDS = {
    "abort": (os.abort, ()),
    "kill": (exec, ("import os; os.kill(os.getpid(), 9)",)),
    "segfault": (exec, ("import os; os.kill(os.getpid(), 11)",)),
    "error": (os._exit, (1,)),
    "code": (os._exit, (3,)),
    "stay": (time.sleep, (600,)),
    # A wait for a device is like this: no handler of Python's is called, and no thread runs
    "deaf": (
        exec,
        ("import ctypes, signal; signal.pthread_sigmask(0, {15, 2}); ctypes.PyDLL(None).sleep(600)",),
    ),
}
FRESH, OLD = time.time() + 1e6, 0.0
OWN, WAITED, PEER = ValueError("own"), WaitError("waited"), PeerError("peer")

# Of each process its end, its error, and the time of its last sign; the error that is the run's.
CASES = {
    "a kill": ([("kill", None, FRESH), ("stay", None, FRESH)], KilledError, "process 0 of 2, .* by SIGKILL$"),
    "a kill, the other deaf": ([("deaf", None, FRESH), ("kill", None, FRESH)], KilledError, "process 1 of 2"),
    "a crash": ([("stay", None, FRESH), ("segfault", None, FRESH)], KilledError, "by SIGSEGV$"),
    "an error before a kill": ([("kill", OWN, FRESH), ("stay", None, FRESH)], ValueError, "^own$"),
    "an error": ([("stay", None, FRESH), ("error", OWN, FRESH)], ValueError, "^own$"),
    "an error that others wait for": ([("error", WAITED, FRESH), ("error", OWN, FRESH)], ValueError, "^own$"),
    "an error told by another": ([("error", OWN, FRESH), ("error", PEER, FRESH)], ValueError, "^own$"),
    "an assertion on a device": ([("abort", OWN, FRESH), ("stay", None, FRESH)], ValueError, "^own$"),
    "an assertion that others wait for": ([("error", WAITED, FRESH), ("abort", OWN, FRESH)], ValueError, "^own$"),
    "a watchdog": (
        [("abort", None, FRESH), ("stay", None, FRESH)],
        WaitError,
        "process 0 of 2, .* by SIGABRT, .*; rank 0 was last at place 0; rank 1 was last at place 1$",
    ),
    "both watchdogs": ([("abort", None, FRESH), ("abort", None, FRESH)], WaitError, "by SIGABRT"),
    "an abort that others wait for": ([("error", WAITED, FRESH), ("abort", None, FRESH)], WaitError, "process 1 of 2"),
    "a watchdog, the other stopped": (
        [("stay", None, OLD), ("abort", None, FRESH)],
        LostError,
        "rank 0 was stopped at place 0; rank 1 was last at place 1$",
    ),
    "a wait": ([("error", WAITED, FRESH), ("stay", None, FRESH)], WaitError, "^waited$"),
    "a wait for a stopped one": (
        [("error", WAITED, FRESH), ("stay", None, OLD)],
        LostError,
        "^waited; rank 1 gives no sign of life$",
    ),
    "a wait for one that was stopped before it began": (
        [("error", WAITED, FRESH), ("stay", None, None)],
        LostError,
        "rank 1 gives no sign of life",
    ),
    "no word": ([("stay", None, FRESH), ("code", None, FRESH)], RuntimeError, "process 1 of 2, .* exit code 3$"),
}


QUICK_CASES = ("a kill, the other deaf", "an error told by another", "a watchdog", "a wait for a stopped one")


@pytest.mark.parametrize("name", rest_slow(CASES, lambda case: case[0] in QUICK_CASES))
def test_what_ended_a_run(name, tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "FAILING", 0.2)
    ends, kind, message = CASES[name]
    spawn = multiprocessing.get_context("spawn")
    crew = [spawn.Process(target=ENDS[end][0], args=ENDS[end][1]) for end, _, _ in ends]
    for rank, (_, error, told) in enumerate(ends):
        if error is not None:
            save_error(tmp_path, rank, error)
        if told is not None:
            save(tmp_path / f"sign{rank}", Sign(told, f"at place {rank}"))
    launcher = Launcher(compose([*WINE, "trainer=ddp_cpu"]), tmp_path, None, 2)
    launch._start(crew)
    try:
        with pytest.raises(kind) as caught:
            launcher._watch(crew, tmp_path)
        assert caught.type is kind
        assert re.search(message, str(caught.value))
    finally:
        start = time.monotonic()
        launch._kill(crew)
    assert time.monotonic() - start < 5
    assert not any(process.is_alive() for process in crew)


@pytest.mark.parametrize("done", [(True, False), pytest.param((True, True), marks=pytest.mark.slow)])
def test_nobody_is_waited_for_for_ever(done, tmp_path, monkeypatch):
    """One that stays when another is done, or when all are, as one that was stopped while it left."""
    monkeypatch.setattr(launch, "LEAVING", 0.5)
    crew = [multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,)) for _ in range(2)]
    for rank, ended in enumerate(done):
        if ended:
            save(tmp_path / f"done{rank}", time.time())
    launch._start(crew)
    launcher = Launcher(compose([*WINE, "trainer=ddp_cpu", "trainer.timeout=1"]), tmp_path, None, 2)
    with pytest.raises(KilledError, match=r"was ended by SIGKILL"):
        launcher._watch(crew, tmp_path)
    launch._kill(crew)


class Asked(Callback):
    """Asks its own process to end, at one moment."""

    def __init__(self, moment: str, number: int):
        self.moment, self.number = moment, number

    def ask(self, moment: str) -> None:
        if moment == self.moment:
            os.kill(os.getpid(), self.number)

    def setup(self, trainer, task, stage):
        self.ask("setup")

    def on_train_batch_end(self, *_):
        self.ask("training")

    def on_validation_end(self, *_):
        self.ask("validation")

    def on_test_start(self, *_):
        self.ask("test")


class AskedInData(Wine):
    """Asks its own process to end while the parts are built."""

    def setup(self, stage=None):
        os.kill(os.getpid(), signal.SIGTERM)
        super().setup(stage)


@pytest.mark.parametrize(
    ("moment", "number"),
    [(moment, signal.SIGTERM) for moment in ("data", "setup", "training", "validation", "test")]
    + [("training", signal.SIGHUP), ("training", signal.SIGINT)],
)
def test_a_run_that_is_asked_to_end_is_interrupted_whenever_that_is(moment, number, tmp_path):
    config = compose([*QUICK, *WINE])
    config.callbacks = {"asked": {"_target_": "test_launch.Asked", "moment": moment, "number": int(number)}}
    if moment == "data":
        config.data._target_ = "test_launch.AskedInData"
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
    with pytest.raises(KeyboardInterrupt):
        run(config, folder=tmp_path)
    assert (result_of(tmp_path)["status"], result_of(tmp_path)["error"]) == ("interrupted", "KeyboardInterrupt")
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)] == before


def test_what_somebody_has_set_for_a_signal_stays():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup does that
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
