"""AOTInductor: C++ compiled for this kind of processor, which torch loads from Python and C++.

from torch._inductor import aoti_load_package
network = aoti_load_package("model.aoti.pt2")
answers = network(samples)
"""

from collections.abc import Callable
from typing import Any

FILE = "model.aoti.pt2"
NEEDS = ()
COMPILES = True


def write(source: Any, path: str) -> None:
    from torch._inductor import aoti_compile_and_package

    aoti_compile_and_package(source.program, package_path=path)


def load(path: str, threads: int) -> Callable[[Any], Any]:
    import torch
    from torch._inductor import aoti_load_package

    torch.set_num_threads(threads)
    network = aoti_load_package(path)

    def run(samples: Any) -> Any:
        with torch.no_grad():
            return network(torch.from_numpy(samples)).numpy()

    return run
