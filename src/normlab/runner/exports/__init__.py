"""The formats that action=export writes, one file each, and what can be refused of them without torch.

A format is a module here with `FILE`, the name of what it writes, `NEEDS`, the packages that it imports beside
normlab's own, `write(source, path)` and `load(path, threads)`. The latter runs in a process that cannot import normlab,
and so nothing of normlab, nor of torch, is imported when the module is. `load` gives a function from samples to
answers, both arrays of numpy; or, where `WEIGHTS` says that the file holds weights alone, these by name. `COMPILES`
says that a C++ compiler is needed. With `quantize(path, target, samples)` a format can also write integers of 8 bits.
"""

import importlib.util
import os
import shutil
from importlib import import_module
from pathlib import Path
from types import ModuleType

from omegaconf import DictConfig

from normlab.errors import ConfigError, did_you_mean, show

HERE = Path(__file__).parent
TORCHSCRIPT = ("torchscript", "jit", "script", "trace")


def formats() -> list[str]:
    return sorted(file.stem for file in HERE.glob("*.py") if file.stem != "__init__")


def module(name: str) -> ModuleType:
    """The module of a format."""
    return import_module(f"{__name__}.{name}")


def check_format(config: DictConfig) -> None:
    """Raises ConfigError for a format that is not known, not installed, or of no use to the action."""
    if config.action != "export":
        for key, unset in (("format", None), ("int8", False)):
            if config[key] != unset:
                raise ConfigError(
                    f"{key}={show(config[key])} with action={config.action}: action=export name=<run> takes it"
                )
        return
    name, known = str(config.format), formats()
    if config.format is None:
        raise ConfigError(f"action=export: say what to write, format={' or '.join(known)}")
    if name in TORCHSCRIPT:
        raise ConfigError(f"format={name}: torch has deprecated TorchScript; format=torch_export has taken its place")
    if name not in known:
        raise ConfigError(f"format={name}: expected one of {', '.join(known)}{did_you_mean(name, known)}")
    _check_installed(name)
    if config.int8 and not hasattr(module(name), "quantize"):
        able = [each for each in known if hasattr(module(each), "quantize")]
        raise ConfigError(f"int8=true with format={name}: choose format={' or '.join(able)}, or leave int8 out")


def _check_installed(name: str) -> None:
    missing = [package for package in module(name).NEEDS if importlib.util.find_spec(package) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ConfigError(
            f"format={name}: {' and '.join(missing)} {verb} not installed; pip install -e '.[export]' brings that"
        )
    compiler = os.environ.get("CXX", "g++")
    if getattr(module(name), "COMPILES", False) and shutil.which(compiler) is None:
        raise ConfigError(f"format={name} compiles C++, and there is no {compiler}: install one, or set CXX")
