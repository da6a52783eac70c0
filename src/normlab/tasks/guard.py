"""Stops NaN and infinities before they reach weights and statistics."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from normlab.distributed.collectives import agreed, minimum
from normlab.distributed.shards import is_cut, shard_of
from normlab.errors import PeerError
from normlab.tasks.buffers import Buffers
from normlab.tasks.gate import Gate, make_gate
from normlab.tasks.looks import Looks, lag
from normlab.tasks.nonfinite import REMEDY, first_cause, kind

log = logging.getLogger(__name__)

COUNTED = ("epoch_skipped", "epoch_batches", "spoiled", "first_cause")  # attributes that belong to an epoch

Policy = Literal["raise", "skip", "stop"]


@dataclass
class Forward:
    """What a batch's forward pass can be made again by, and where in the training it was, in words."""

    where: str
    x: Tensor
    target: Tensor
    random: Tensor  # the state of the random number generator before it
    cuda_random: Tensor | None


class Guard:
    """Looks at the loss of each training batch while weights and buffers can still be restored.

    Call `remember` before the forward pass, `passes` after it, `after_backward` and `before_step` where these names
    say; `begin` before a training, `begin_epoch` and `end_epoch` around an epoch, and `settle` before anything is
    saved. Where a loss is not finite, all buffers of the network are put back, and the policy decides: `raise` raises
    FloatingPointError with the cause; `skip` counts the batch, and the caller leaves it out; `stop` only tells the
    caller. where: gives the place in the training, in words. Several processes decide together: one whose own loss is
    finite leaves its batch out too, or raises PeerError. In the same exchange they tell each other whether one of them
    `asks` for a pause after this batch; `asked` is then true in all of them, until the caller resets it.

    On the CPU the loss is read at once, which costs 12 µs of the 600 that a step of benchmarks/steps.py takes. A GPU
    would wait for that: there, where the optimizer takes a flag, the device itself leaves the batch out, and after
    `raise` all batches that follow, until the processor sees the flag; see `normlab.tasks.looks.lag`.
    """

    def __init__(self, network: nn.Module, policy: Policy, where: Callable[[], str]):
        self.network, self.policy, self.where = network, policy, where
        self.skipped = 0  # how many batches the whole run has skipped
        self.epoch_skipped = self.epoch_batches = 0
        self.spoiled = False  # whether a batch was left out; the caller resets it
        self.first_cause = ""
        self.asks: Callable[[], bool] = lambda: False
        self.asked = False
        self.buffers = Buffers(network)
        self.device = torch.device("cpu")
        self.random = torch.empty(0)  # states of the random number generators
        self.cuda_random: Tensor | None = None
        self.gate: Gate | None = None
        self.going_on = torch.tensor(True)  # on the device: whether no batch has ended the run yet
        self.looks = Looks()
        self.after: Callable[[], None] | None = None  # what is left to be done after the backward pass

    def begin(self, optimizers: Sequence[Optimizer]) -> None:
        """Decides, once optimizers have their states, where batches are left out."""
        self.device = self._device()
        if lag(self.device) and self.policy != "stop" and not is_cut(self.network):
            self.gate = make_gate(optimizers, self.device)
            self.going_on = torch.ones((), dtype=torch.bool, device=self.device)

    def begin_epoch(self) -> None:
        self.epoch_skipped = self.epoch_batches = 0
        self.asked = False
        self.buffers = Buffers(self.network)
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
        self.buffers.remember()
        self.random = torch.get_rng_state()
        if self.device.type == "cuda":
            self.cuda_random = torch.cuda.get_rng_state(self.device)

    def passes(self, loss: Tensor, x: Tensor, target: Tensor, keep: Callable[[], None] = lambda: None) -> bool:
        """Whether the batch may have a backward pass; raises FloatingPointError under `raise` where it may not.

        Where the device decides, every batch has one. keep: called once it is known that the batch is trained on.
        """
        self.epoch_batches += 1
        if self.gate is not None:
            self._decide_on_device(self.gate, loss, x, target, keep)
            return True
        value = loss.item()
        finite, unasked = agreed([math.isfinite(value), not self.asks()], loss.device)
        self.asked |= not unasked
        if finite:
            keep()
            return True
        self.buffers.put_back()
        self.spoiled = True
        self._leave_out(value, Forward(self.where(), x, target, self.random, self.cuda_random))
        return False

    def after_backward(self) -> None:
        """Lets the device put buffers back, which the backward pass needs as they were; may look at earlier batches."""
        if self.after is not None:
            after, self.after = self.after, None
            after()

    def before_step(self) -> None:
        """Lets the device leave out an optimizer's step."""
        if self.gate is not None:
            self.gate.before_step()

    @property
    def leaves_out(self) -> bool:
        """Whether the step that comes leaves its batches out; asked between the backward pass and `before_step`.

        Where the device decides, this waits for it.
        """
        return self.spoiled or (self.gate is not None and bool(self.gate.closed))

    def settle(self) -> None:
        """Looks at all batches so far, of which each process has had as many."""
        self.looks.settle()

    @property
    def trained(self) -> bool:
        """Whether the epoch had a batch to train on."""
        return self.epoch_batches > self.epoch_skipped

    def end_epoch(self) -> None:
        """Adds up the epoch's skipped batches and reports them. Raises FloatingPointError where no batch is left."""
        self.settle()
        if self.policy != "skip" or not self.epoch_skipped:
            return
        self.skipped += self.epoch_skipped
        message = f"{self.epoch_skipped} of {self.epoch_batches} batches were skipped; the first: {self.first_cause}"
        if not self.trained:
            raise FloatingPointError(message)
        log.warning(message)

    def check_state(self, looks: Looks) -> None:
        """Raises FloatingPointError where a checkpoint would save NaN or inf, which no loss may have shown.

        It does when `looks` comes to it, which the caller settles before anything is saved.
        """
        if self.policy == "stop":
            return
        state = self.network.state_dict().items()
        floats = {name: shard_of(v) for name, v in state if isinstance(v, Tensor) and v.is_floating_point()}
        if not floats:
            return
        finite = torch.stack([torch.isfinite(values).all() for values in floats.values()])
        all_finite = minimum(finite.all().int()[None])
        looks.add(torch.cat([all_finite, finite.int()]), partial(self._see_state, [*floats], self.where()))

    def _see_state(self, names: Sequence[str], where: str, flags: list[float]) -> None:
        everywhere, *finite = flags
        if everywhere:
            return
        bad = next((name for name, good in zip(names, finite, strict=True) if not good), None)
        if bad is None:
            raise PeerError(f"what another process holds is not finite in {where}")
        layer, _, key = bad.rpartition(".")
        raise FloatingPointError(
            f"{layer or 'the network'} ({kind(self.network.get_submodule(layer))}) holds NaN or inf in {key} in "
            f"{where}, which no loss has shown: {REMEDY}, or look for a branch of the network that does not "
            "reach the loss"
        )

    def _device(self) -> torch.device:
        return next((parameter.device for parameter in self.network.parameters()), torch.device("cpu"))

    def _decide_on_device(self, gate: Gate, loss: Tensor, x: Tensor, target: Tensor, keep: Callable[[], None]) -> None:
        """Leaves the batch out of weights and buffers where it is not finite, and looks at that a few batches later."""
        loss, asks = loss.detach(), self.asks()
        good, unasked = minimum(torch.stack([loss.isfinite(), loss.new_full((), not asks, dtype=torch.bool)]).int())
        good = good.bool()
        if self.policy == "raise":
            good = self.going_on.logical_and_(good).clone()
        gate.leave_out(~good)
        forward = Forward(self.where(), x, target, self.random, self.cuda_random)
        values = torch.stack([loss.to(torch.promote_types(loss.dtype, torch.float32)), good, unasked])

        def after() -> None:
            self.buffers.put_back_unless(good)
            self.looks.add(values, partial(self._see, forward, keep))

        self.after = after

    def _see(self, forward: Forward, keep: Callable[[], None], values: list[float]) -> None:
        value, good, unasked = values
        self.asked |= not unasked
        if good:
            keep()
        else:
            self._leave_out(value, forward)

    def _leave_out(self, value: float, forward: Forward) -> None:
        """Counts a batch that was left out, and finds the cause. value: the loss. Raises under `raise`."""
        self.epoch_skipped += 1
        if self.policy != "raise" and self.epoch_skipped > 1:
            return  # only the first cause of an epoch is looked for; the others are counted
        with self._same_random_numbers(forward), self.buffers.kept():
            symptom = f"train/loss is {value} in {forward.where}"
            cause, is_here = first_cause(symptom, math.isfinite(value), self.network, forward.x, forward.target)
        if self.policy != "raise":
            self.first_cause = cause
        elif not is_here:
            raise PeerError(f"the loss of another process is not finite in {forward.where}")
        else:
            raise FloatingPointError(f"{cause}. nonfinite=skip leaves such batches out")

    @contextmanager
    def _same_random_numbers(self, forward: Forward) -> Iterator[None]:
        """Repeats the random numbers of a forward pass inside the context, and goes on as before after it."""
        with torch.random.fork_rng([] if forward.cuda_random is None else [self.device]):
            torch.set_rng_state(forward.random)
            if forward.cuda_random is not None:
                torch.cuda.set_rng_state(forward.cuda_random, self.device)
            yield
