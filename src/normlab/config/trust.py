"""What a configuration may name that was read from a folder: a folder may come from anybody, and what is named is run.

A `_target_` may stand where a part does. It is then one that an option in `conf/` names in the same place, or a class
of a known package, of the kind that the place expects. Everything else needs the person's word: `trust=[package]`.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from hydra.utils import get_class, get_object
from omegaconf import DictConfig, OmegaConf

from normlab.errors import LIBRARIES, ConfigError

PACKAGES = ("normlab", *LIBRARIES)

# The places of parts, and the class that each expects; * stands for any name.
PLACES = {
    "model": "torch.nn.Module",
    "norm": "normlab.norms.common.base.Norm",
    "data": "lightning.LightningDataModule",
    "loss": "torch.nn.Module",
    "task.metrics.*": "torchmetrics.Metric",
    "optimizer": "torch.optim.Optimizer",
    "scheduler": "torch.optim.lr_scheduler.LRScheduler",
    "trainer": "lightning.Trainer",
    "trainer.profiler": "lightning.pytorch.profilers.Profiler",
    "callbacks.*": "lightning.Callback",
    "logger.*": "lightning.pytorch.loggers.Logger",
}


def targets(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every `_target_` in a tree of dicts and lists, with the key that it stands under."""
    branches = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, branch in branches:
        if name == "_target_":
            yield key, branch
        else:
            yield from targets(branch, f"{key}.{name}".removeprefix("."))


@dataclass(frozen=True)
class Reading:
    """A configuration as `file` has it, and whose word stands for what in it.

    typed: the keys that were typed, whose values do not come from the file. trusted: the packages that the person
    trusts. own: what the options of a group name, as `targets` lists it.
    """

    file: str
    saved: DictConfig
    typed: Collection[str]
    trusted: Collection[str]
    own: Callable[[str], Collection[tuple[str, Any]]]

    def check_names(self) -> None:
        """Raises ConfigError for a part in a place without parts, or of an unknown package. Imports nothing."""
        for key, target in self._foreign():
            if _place(key) is None:
                raise self._refusal(key, target, "stands where no part does")
            if not isinstance(target, str) or target.partition(".")[0] not in PACKAGES or "__" in target:
                raise self._refusal(key, target, f"is neither an option in conf/ nor a class of {', '.join(PACKAGES)}")

    def check_classes(self) -> None:
        """Raises ConfigError for a part that does not fit its place; call `check_names` first.

        Imports the known package that a part is of, unless an option names the very part.
        """
        for key, target in self._foreign():
            expected = PLACES[str(_place(key))]
            try:
                part = get_object(target)
            except (ImportError, ValueError) as error:
                reason = str(error).splitlines()[-1]
                raise ConfigError(f"{self.file}: {key}._target_={target} cannot be imported: {reason}") from error
            if not (isinstance(part, type) and issubclass(part, get_class(expected))):
                raise self._refusal(key, target, f"is no class of kind {expected}")

    def _foreign(self) -> Iterator[tuple[str, Any]]:
        """What is named that is neither typed, nor trusted, nor what an option names in the same place."""
        for key, target in targets(OmegaConf.to_container(self.saved)):
            typed = any(f"{key}._target_.".startswith(f"{name}.") for name in self.typed)
            trusted = any(f"{target}.".startswith(f"{package}.") for package in self.trusted)
            if not typed and not trusted and (key, target) not in self.own(key.partition(".")[0]):
                yield key, target

    def _refusal(self, key: str, target: Any, reason: str) -> ConfigError:
        package = str(target).partition(".")[0]
        return ConfigError(
            f"{self.file}: {key}._target_={target} {reason}, and a run folder may come from anybody. If you know what "
            f"it does: trust=[{package}], typed or in conf/local/default.yaml, or --config-dir=<folder with its option>"
        )


def _place(key: str) -> str | None:
    """The place in PLACES that a key is; None where no part stands."""
    above, _, _ = key.rpartition(".")
    anywhere = f"{above}.*" if above else None
    return next((place for place in (key, anywhere) if place in PLACES), None)
