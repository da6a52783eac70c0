"""The files that an action reads besides its configuration: a checkpoint, new samples, the data set."""

from pathlib import Path

from omegaconf import DictConfig

NEED_A_RUN = ("validate", "test", "predict", "export", "doctor")  # actions that look at a trained network
ALONE = ("predict", "export", "doctor")  # actions that one process does, however many have trained
READ_INPUT = ("test", "predict")  # those that take new samples


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


def output_folder(config: DictConfig, run_folder: Path) -> Path:
    """Where an action writes: a fit into the run's own folder, the others beside what it holds.

    The score of a labelled file has a folder of its own, so that it does not take the place of the test part's.
    """
    if config.action == "fit":
        return run_folder
    if config.out is not None:
        return Path(str(config.out))
    path = input_path(config)
    own = (path.resolve().name,) if config.action == "test" and path is not None else ()
    return run_folder.joinpath(config.action, *own)


def input_path(config: DictConfig) -> Path | None:
    """The new samples to predict, or the labelled ones to measure; None where it is the test part."""
    return None if config.input is None else Path(str(config.input))


def reads_data(config: DictConfig) -> bool:
    """Whether an action reads the data set; new samples are read by what the run folder keeps of it."""
    return config.action not in READ_INPUT or input_path(config) is None
