"""Whether a run cuts its network over its processes, as `trainer=fsdp` has it, and what does not go with that."""

from omegaconf import DictConfig, OmegaConf

from normlab.errors import ConfigError, show


def cuts(config: DictConfig) -> bool:
    """Whether a run with several processes cuts its network, instead of giving each process a copy."""
    return config.trainer.strategy == "fsdp"


def check_cutting(config: DictConfig) -> None:
    """Raises ConfigError for settings that do not go with a network that is cut."""
    if config.trainer.num_nodes == 1:
        check_several(config, config.trainer.devices)
    for key, value, remedy in (
        ("trainer.precision", "16-mixed", "bf16-mixed"),  # 16-mixed scales gradients by what one process sees
        ("channels_last", True, "false"),  # fully_shard cuts contiguous parameters only
        ("compile", True, "false"),
        ("nonfinite", "skip", "raise"),
    ):
        if OmegaConf.select(config, key) == value:
            raise ConfigError(f"{key}={show(value)} cannot be combined with trainer.strategy=fsdp; use {remedy}")
    for averaging in {"ema", "swa", "lookahead"} & {*config.callbacks}:
        raise ConfigError(
            f"callbacks={averaging} keeps a whole average in each process, and trainer.strategy=fsdp cuts the network: "
            "use trainer.strategy=ddp"
        )
    if "recorder" in config.callbacks:
        raise ConfigError(
            "callbacks=recorder measures whole weights and gradients, and trainer.strategy=fsdp cuts them: use "
            "trainer.strategy=ddp"
        )


def check_several(config: DictConfig, processes: int | str) -> None:
    """Raises ConfigError for a fit that is to cut a network over a single process."""
    if config.action in ("fit", "lr_find") and processes == 1:
        raise ConfigError(
            "trainer.strategy=fsdp cuts a network over several processes, and there is one: set trainer.devices=2 or "
            "more, on the CPU with trainer.accelerator=cpu, or trainer.strategy=ddp"
        )
