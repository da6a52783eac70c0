"""torch.export's own file: torch loads it, without the code of the network.

import torch
network = torch.export.load("model.pt2").module()
answers = network(samples)
"""

from collections.abc import Callable
from typing import Any

FILE = "model.pt2"
NEEDS = ()


def write(source: Any, path: str) -> None:
    import torch

    torch.export.save(source.program, path)


def load(path: str, threads: int) -> Callable[[Any], Any]:
    import torch

    torch.set_num_threads(threads)
    network = torch.export.load(path).module()

    def run(samples: Any) -> Any:
        with torch.no_grad():
            return network(torch.from_numpy(samples)).numpy()

    return run
