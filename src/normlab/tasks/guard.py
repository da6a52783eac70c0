"""Stops NaN and infinities before they reach weights and statistics."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import is_not
from typing import Any, Literal

import torch
from torch import Tensor, nn

from normlab.distributed.collectives import agreed, everywhere
from normlab.errors import PeerError
from normlab.tasks.nonfinite import REMEDY, first_cause, is_finite, kind

log = logging.getLogger(__name__)

COUNTED = ("epoch_skipped", "epoch_batches", "spoiled", "first_cause")  # attributes that belong to an epoch

Policy = Literal["raise", "skip", "stop"]


class Guard:
    """Looks at the loss of each training batch while weights and buffers can still be restored.

    Call `remember` before the forward pass and `passes` after it, and `begin_epoch` and `end_epoch` around an epoch.
    Where a loss is not finite, all buffers of the network are put back, and the policy decides: `raise` raises
    FloatingPointError with the cause; `skip` counts the batch, and the caller leaves it out; `stop` only tells the
    caller. where: gives the place in the training, in words. Several processes decide together: one whose own loss is
    finite leaves its batch out too, or raises PeerError. In the same exchange they tell each other whether one of them
    `asks` for a pause after this batch; `asked` is then true in all of them, until the caller resets it.

    It costs 12 µs of the 600 that a step of benchmarks/steps.py takes, and on a GPU one synchronisation, as GradScaler.
    """

    def __init__(self, network: nn.Module, policy: Policy, where: Callable[[], str]):
        self.network, self.policy, self.where = network, policy, where
        self.skipped = 0  # how many batches the whole run has skipped
        self.epoch_skipped = self.epoch_batches = 0
        self.spoiled = False  # whether a batch was left out; the caller resets it
        self.first_cause = ""
        self.asks: Callable[[], bool] = lambda: False
        self.asked = False
        self.slots: list[tuple[dict[str, Any], str]] = []  # for each buffer, its module's buffers and its name
        self.tensors: list[Tensor] = []
        self.copies: list[Tensor] = []
        self.device = torch.device("cpu")
        self.random = self.cuda_random = torch.empty(0)  # states of the random number generators

    def begin_epoch(self) -> None:
        self.epoch_skipped = self.epoch_batches = 0
        buffers = ((module._buffers, name) for module in self.network.modules() for name in module._buffers)
        self.slots = [(held, name) for held, name in buffers if held[name] is not None]
        self.device = self._device()

    def epoch_state(self) -> dict[str, Any]:
        """What the epoch in progress has counted, in plain values."""
        return {name: getattr(self, name) for name in COUNTED}

    def load_epoch_state(self, state: dict[str, Any]) -> None:
        """Goes on with an epoch in place of `begin_epoch`."""
        self.begin_epoch()
        for name in COUNTED:
            setattr(self, name, state[name])

    def remember(self) -> None:
        """Keeps the buffers, and the random numbers that the forward pass is about to draw from."""
        tensors = [held[name] for held, name in self.slots]
        if len(tensors) != len(self.tensors) or any(map(is_not, tensors, self.tensors)):
            self.tensors, self.copies = tensors, [tensor.detach().clone() for tensor in tensors]
        elif tensors:
            torch._foreach_copy_(self.copies, tensors)  # pyright: ignore[reportPrivateImportUsage]
        self.random = torch.get_rng_state()
        if self.device.type == "cuda":
            self.cuda_random = torch.cuda.get_rng_state(self.device)

    def passes(self, loss: Tensor, x: Tensor, target: Tensor) -> bool:
        """Whether the batch may be trained on; raises FloatingPointError under `raise` where it may not."""
        self.epoch_batches += 1
        value = loss.item()
        finite, unasked = agreed([math.isfinite(value), not self.asks()], loss.device)
        self.asked |= not unasked
        if finite:
            return True
        self._restore()
        self.spoiled = True
        self.epoch_skipped += 1
        if self.policy != "raise" and self.epoch_skipped > 1:
            return False  # only the first cause of an epoch is looked for; the others are counted
        with self._same_random_numbers():
            symptom = f"train/loss is {value} in {self.where()}"
            cause, is_here = first_cause(symptom, math.isfinite(value), self.network, x, target)
        self._restore()
        if self.policy != "raise":
            self.first_cause = cause
            return False
        if not is_here:
            raise PeerError(f"the loss of another process is not finite in {self.where()}")
        raise FloatingPointError(f"{cause}. nonfinite=skip leaves such batches out")

    @property
    def trained(self) -> bool:
        """Whether the epoch had a batch to train on."""
        return self.epoch_batches > self.epoch_skipped

    def end_epoch(self) -> None:
        """Adds up the epoch's skipped batches and reports them. Raises FloatingPointError where no batch is left."""
        if self.policy != "skip" or not self.epoch_skipped:
            return
        self.skipped += self.epoch_skipped
        message = f"{self.epoch_skipped} of {self.epoch_batches} batches were skipped; the first: {self.first_cause}"
        if not self.trained:
            raise FloatingPointError(message)
        log.warning(message)

    def check_state(self) -> None:
        """Raises FloatingPointError where a checkpoint would save NaN or inf, which no loss may have shown."""
        if self.policy == "stop":
            return
        state = self.network.state_dict().items()
        bad = next((name for name, value in state if isinstance(value, Tensor) and not is_finite(value)), None)
        if everywhere(bad is None, self._device()):
            return
        if bad is None:
            raise PeerError(f"what another process holds is not finite in {self.where()}")
        layer, _, key = bad.rpartition(".")
        raise FloatingPointError(
            f"{layer or 'the network'} ({kind(self.network.get_submodule(layer))}) holds NaN or inf in {key} in "
            f"{self.where()}, which no loss has shown: {REMEDY}, or look for a branch of the network that does not "
            "reach the loss"
        )

    def _device(self) -> torch.device:
        return next((parameter.device for parameter in self.network.parameters()), torch.device("cpu"))

    @torch.no_grad()
    def _restore(self) -> None:
        for (held, name), tensor, copy in zip(self.slots, self.tensors, self.copies, strict=True):
            tensor.copy_(copy)
            held[name] = tensor  # a layer may have assigned another tensor

    @contextmanager
    def _same_random_numbers(self) -> Iterator[None]:
        """Repeats the random numbers of the forward pass inside the context, and goes on as before after it."""
        cuda = self.device.type == "cuda"
        with torch.random.fork_rng([self.device] if cuda else []):
            torch.set_rng_state(self.random)
            if cuda:
                torch.cuda.set_rng_state(self.cuda_random, self.device)
            yield
