"""A process that waits in vain says for whom, and where that one is.

One pair of processes walks all cases (`walk`) and leaves what was said.
"""

import pickle
import re
import time
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.multiprocessing as processes
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torchmetrics import SumMetric

from normlab.distributed import peers
from normlab.distributed.collectives import of_all
from normlab.errors import LostError, PeerError, WaitError
from normlab.norms.common.synchronise import Synchronise


def layer() -> None:
    Synchronise().apply(nn.Sequential(nn.BatchNorm2d(3)))(torch.randn(2, 3, 4, 4))


def gradients(network: nn.Module) -> None:
    network(torch.randn(2, 3)).sum().backward()


def metric() -> None:
    found = SumMetric()
    found.update(1.0)
    found.compute()


def oversleep(file: Path) -> None:
    while not file.exists():
        time.sleep(0.1)


def break_down() -> None:
    raise ValueError("no such file")


# What rank 0 does, what rank 1 does instead, and the error that rank 0 gives.
CASES = {
    "layer": (layer, oversleep, WaitError),
    "gradients": (gradients, oversleep, WaitError),
    "barrier": (distributed.barrier, oversleep, WaitError),
    "objects": (lambda: of_all("x"), oversleep, WaitError),
    "metric": (metric, oversleep, WaitError),
    "another collective": (layer, distributed.barrier, WaitError),
    "another's error": (layer, break_down, PeerError),
    "no answer": (layer, oversleep, LostError),
}


def walk(rank: int, folder: str) -> None:
    """What each of the two processes does."""
    torch.set_num_threads(1)
    peers.LOOK, peers.PATIENCE = 0.2, 4.0
    said = {name: one(name, rank, Path(folder, name)) for name in CASES}
    Path(folder, f"{rank}.pickle").write_bytes(pickle.dumps(said))


def one(name: str, rank: int, file: Path) -> Exception | None:
    patience = timedelta(seconds=2)
    distributed.init_process_group("gloo", f"file://{file}", rank=rank, world_size=2, timeout=patience)
    act = CASES[name][rank]
    over = file.with_suffix(".over")
    arguments = [over] if act is oversleep else []
    if name == "gradients":
        network = DistributedDataParallel(nn.Linear(3, 2))
        arguments = arguments or [network]
    trainer = SimpleNamespace(world_size=2, global_rank=rank, current_epoch=7, global_step=9)
    # a process that was stopped has no thread that runs
    context = nullcontext() if rank == 1 and name == "no answer" else peers.Peers(trainer)
    found = None
    try:
        with context:
            act(*arguments)
    except Exception as error:
        found = error.with_traceback(None)
        found.__cause__ = found.__context__ = None
    if rank == 0:
        over.touch()
    oversleep(over)
    distributed.destroy_process_group()
    return found


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> list[dict[str, Exception | None]]:
    folder = tmp_path_factory.mktemp("peers")
    processes.spawn(walk, (str(folder),), nprocs=2)
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_kind_of_error(said, name):
    assert type(said[0][name]) is CASES[name][2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("layer", r"rank 0 of 2 waited in vain for the others' statistics in 0: .*Timed out"),
        ("gradients", r"rank 0 of 2 waited in vain in test_peers.gradients, line \d+ \(Timed out waiting 2000ms"),
        ("barrier", r"rank 0 of 2 waited in vain in test_peers.one, line \d+ \(Timed out waiting 2000ms"),
        ("objects", r"rank 0 of 2 waited in vain in test_peers\.<lambda>, line \d+ \(Timed out waiting 2000ms"),
        ("metric", r"rank 0 of 2 waited in vain in torchmetrics.\S+gather\S*, line \d+ \(Timed out waiting 2000ms"),
    ],
)
def test_who_waits_where_and_who_is_where_instead(said, name, place):
    message = str(said[0][name])
    other = (
        r"\), epoch 7, step 9; rank 1 is in test_peers.oversleep, line \d+, epoch 7, step 9. If it only takes longer"
    )
    assert re.search(f"^{place}.*{other}", message, re.DOTALL), message
    assert said[1][name] is None


@pytest.mark.slow
def test_processes_in_different_collectives_name_each_other(said):
    first, second = (str(rank["another collective"]) for rank in said)
    assert "statistics in 0: " in first
    assert "; rank 1 is in test_peers.one, line" in first or "; rank 1 waited in test_peers.one, line" in first
    assert second.startswith("rank 1 of 2 waited in vain in test_peers.one, line")
    assert "; rank 0 waited in 0, epoch 7" in second or "; rank 0 is in 0, epoch 7" in second


@pytest.mark.slow
def test_anothers_error_is_told_and_stays_its_own(said):
    assert str(said[0]["another's error"]).startswith("rank 1 failed: ValueError: no such file; rank 0 of 2 waited")
    assert repr(said[1]["another's error"]) == "ValueError('no such file')"


@pytest.mark.slow
def test_a_process_without_an_answer_is_lost(said):
    assert "; rank 1 gives no answer." in str(said[0]["no answer"])


def test_alone_every_error_stays_as_it_is():
    error = RuntimeError("[/gloo/x.cc:1] Timed out")
    trainer = SimpleNamespace(world_size=1, global_rank=0)
    with pytest.raises(RuntimeError) as caught, peers.Peers(trainer):
        raise error
    assert caught.value is error


def test_before_the_processes_have_met_nobody_can_be_asked():
    trainer = SimpleNamespace(world_size=2, global_rank=1)
    error = distributed.DistStoreError("wait timeout after 5000ms, keys: /x")
    message = r"rank 1 of 2 waited in vain in test_peers\.\S+, line \d+ \(wait timeout .*; the processes have not met$"
    with pytest.raises(WaitError, match=message), peers.Peers(trainer):
        raise error
