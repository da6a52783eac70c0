"""What a run says of its training, for the doctor."""

from pathlib import Path

from omegaconf import DictConfig

from normlab.doctor.case import Facts
from normlab.folder.checkpoints import read
from normlab.folder.files import read_result


def facts(config: DictConfig, run_folder: Path, checkpoint: Path) -> Facts:
    """What the folder of a fit and one of its checkpoints say. Raises DamagedError."""
    saved = read(checkpoint, mmap=True, sums=False)
    accumulate = config.trainer.accumulate_grad_batches
    batches = saved["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["completed"]
    # A chunk of steps_per_execution counts as one batch there; each of its batches is a step.
    steps = max(batches, accumulate * saved["global_step"])
    return Facts(
        configured=True,
        steps=steps if config.init is None else None,  # the counters of other weights go on
        accumulate=accumulate,
        processes=read_result(run_folder).get("world_size") or 1,
        synchronised=config.trainer.sync_batchnorm,
        skipped=saved.get("skipped", 0),
    )
