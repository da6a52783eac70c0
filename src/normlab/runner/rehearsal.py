"""Builds a run without training it: to tell what would be refused before the first job, and to measure it later."""

from collections.abc import Collection
from pathlib import Path

from omegaconf import DictConfig

from normlab.logs import no_logging, quiet_lightning, quietly
from normlab.runner.build import Context, Parts, build


def rehearse(config: DictConfig, folder: Path) -> tuple[str, str]:
    """The score of a run, and which end of it is the better one; `folder` is left alone.

    The data is kept for the first job in this process. Raises ConfigError where the run itself would be refused before
    it trains.
    """
    with quietly(), no_logging():
        parts = build_bare(config, folder)
    return parts.record.score, parts.record.mode


def build_bare(config: DictConfig, folder: Path, callbacks: Collection[str] = ()) -> Parts:
    """The parts of a run without its loggers, which may open a run elsewhere, and with these of its callbacks alone.

    The next run in this process may take their data. Raises ConfigError as `build` does.
    """
    bare = config.copy()
    bare.logger = {}
    bare.callbacks = {name: node for name, node in config.callbacks.items() if name in callbacks}
    quiet_lightning()
    return build(bare, folder, Context(shares_data=True))
