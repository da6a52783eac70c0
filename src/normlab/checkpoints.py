"""Reading checkpoints: tensors and plain values only, so that loading one runs no code."""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from normlab.errors import ConfigError
from normlab.parts import cut_like


def load_weights(task: nn.Module, path: Path) -> dict[str, Any]:
    """Loads a run's checkpoint into its task and returns the rest of it.

    Raises ConfigError for a file that is no checkpoint, and for one of another network, naming what differs.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        found = checkpoint["state_dict"]
    except (RuntimeError, pickle.UnpicklingError, KeyError, TypeError, EOFError, OSError) as error:
        raise ConfigError(f"{path} is no checkpoint of normlab: {str(error).splitlines()[0]}") from error
    expected = task.state_dict()
    differences = [f"{key} is missing" for key in expected.keys() - found.keys()]
    differences += [f"{key} is not in this network" for key in found.keys() - expected.keys()]
    differences += [
        f"{key} is {tuple(found[key].shape)} there, {tuple(expected[key].shape)} here"
        for key in expected.keys() & found.keys()
        if found[key].shape != expected[key].shape
    ]
    if differences:
        lines = [f"  {line}" for line in sorted(differences)[:5]]
        more = [f"  and {len(differences) - 5} more"] if len(differences) > 5 else []
        raise ConfigError("\n".join([f"{path} belongs to another network:", *lines, *more]))
    task.load_state_dict({key: cut_like(value, expected[key]) for key, value in found.items()})
    return checkpoint
