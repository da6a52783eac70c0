"""The weights alone, under the names that the network's own class gives them: nothing is folded.

from safetensors.torch import load_file
network.load_state_dict(load_file("model.safetensors"))
"""

from typing import Any

FILE = "model.safetensors"
NEEDS = ("safetensors",)
WEIGHTS = True


def write(source: Any, path: str) -> None:
    from safetensors.torch import save_file

    state = source.network.state_dict()
    save_file({name: values.clone().contiguous() for name, values in state.items()}, path)  # it refuses shared memory


def load(path: str, threads: int) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(path)
