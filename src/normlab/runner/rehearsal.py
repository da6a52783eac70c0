"""Builds a run without training it, which tells before the first job of a sweep what would be refused."""

from pathlib import Path

from omegaconf import DictConfig

from normlab.logs import no_logging, quiet_lightning, quietly
from normlab.runner.build import Context, build


def rehearse(config: DictConfig, folder: Path) -> tuple[str, str]:
    """The score of a run, and which end of it is the better one; `folder` is left alone.

    The data is kept for the first job in this process. Raises ConfigError where the run itself would be refused before
    it trains.
    """
    bare = config.copy()
    bare.callbacks, bare.logger = {}, {}  # loggers may open a run elsewhere
    with quietly(), no_logging():
        quiet_lightning()
        parts = build(bare, folder, Context(shares_data=True))
    return parts.record.score, parts.record.mode
