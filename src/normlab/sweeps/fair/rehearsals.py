"""Which arms cannot be trained, and what all are scored by, told before the first job where this machine can tell."""

from pathlib import Path

from hydra.plugins.launcher import Launcher

from normlab.config.arms import Arm, Fair
from normlab.config.compose import compose_job
from normlab.config.space import probes
from normlab.errors import ConfigError
from normlab.sweeps.jobs import Rehearse
from normlab.sweeps.launchers.joblib import JoblibLauncher
from normlab.sweeps.launchers.queue import is_basic

TRAINING = ("optimizer.", "scheduler.")  # what begins so is not looked at before training


def runs_here(engine: Launcher) -> bool:
    """Whether jobs run on this machine, so that what it can build they can train; elsewhere each job tells it."""
    return is_basic(engine) or isinstance(engine, JoblibLauncher)


def refusals(fair: Fair, rehearse: Rehearse, folder: Path) -> dict[str, str]:
    """Why arms cannot be trained, by their names.

    Raises ConfigError where none can be, and where arms have different scores, which cannot be compared.
    """
    refused: dict[str, str] = {}
    scores: dict[tuple[str, str], str] = {}
    for arm in fair.arms:
        for lines in _probes(arm):
            try:
                scores.setdefault(rehearse(compose_job(lines, arm.source).config, folder), arm.name)
            except ConfigError as error:
                refused[arm.name] = _first_line(error)
                break
    check_scores(scores)
    if len(refused) == len(fair.arms):
        raise ConfigError("\n".join(["every arm is refused", *(f"  {name}: {why}" for name, why in refused.items())]))
    return refused


def check_scores(scores: dict[tuple[str, str], str]) -> None:
    """Raises ConfigError for several scores; each stands with the name of an arm that has it."""
    if len(scores) > 1:
        (one, first), (other, second), *_ = scores.items()
        raise ConfigError(
            f"{first} is scored by {one[0]} ({one[1]}) and {second} by {other[0]} ({other[1]}), which cannot be "
            "compared: sweep them apart"
        )


def _probes(arm: Arm) -> list[list[str]]:
    """Jobs at the ends of what of an arm's space is looked at before training."""
    built = {key: values for key, values in arm.space.items() if not key.startswith(TRAINING)}
    return [*probes([*arm.overrides], built)]


def _first_line(error: ConfigError) -> str:
    return str(error).splitlines()[0]
