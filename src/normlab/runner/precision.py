"""What a processor makes of a precision."""

import logging

import torch

from normlab.errors import ConfigError

log = logging.getLogger(__name__)


def check_on_cpu(precision: str) -> None:
    """Raises ConfigError for 16-mixed, in whose place Lightning would take bfloat16."""
    if precision == "16-mixed":
        raise ConfigError("trainer.precision=16-mixed needs a GPU; on a processor use trainer.precision=bf16-mixed")


def say_where_slow(precision: str) -> None:
    """Warns of bfloat16 on a processor without it."""
    if precision.startswith("bf16") and not has_bfloat16():
        log.warning(
            f"trainer.precision={precision} is slow on this processor, which has no instructions for bfloat16: "
            "trainer.precision=32-true takes a fraction of the time"
        )


def has_bfloat16() -> bool:
    """Whether torch's kernels for convolutions and dense layers have bfloat16 on this processor."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
