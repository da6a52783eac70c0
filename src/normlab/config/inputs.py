"""The files that an action reads besides its configuration: a checkpoint, new samples, the data set."""

from pathlib import Path

from omegaconf import DictConfig

NEED_A_RUN = ("validate", "test", "predict")  # actions that look at a trained network


def checkpoint_path(config: DictConfig, run_folder: Path) -> Path | None:
    """The checkpoint that an action loads before it starts; None for none."""
    ckpt = config.ckpt or ("best" if config.action in NEED_A_RUN else None)
    if ckpt is None:
        return None
    return named_checkpoint(ckpt, run_folder)


def named_checkpoint(ckpt: str, run_folder: Path) -> Path:
    """The file that `ckpt` names: best, last or another of the run's checkpoints, or a path."""
    own = run_folder / "checkpoints" / f"{ckpt.removesuffix('.ckpt')}.ckpt"
    return own if ckpt in ("best", "last") or (own.is_file() and not Path(ckpt).is_file()) else Path(ckpt)


def input_path(config: DictConfig) -> Path | None:
    """The new samples to predict; None where the test part is predicted."""
    return None if config.input is None else Path(str(config.input))


def reads_data(config: DictConfig) -> bool:
    """Whether an action reads the data set; new samples are predicted with what the run folder keeps of it."""
    return config.action != "predict" or input_path(config) is None
