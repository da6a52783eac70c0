"""How well a network answers each of some samples, and whether it answers them better after a change."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Forward = Callable[[nn.Module, Any], Any]
Loss = Callable[[Tensor, Tensor], Tensor]

# A comparison is sure at this chance of seeing as much by luck. A diagnosis makes about five of them, so that of
# two hundred healthy networks one is expected to be told something that is not so, if its changes did nothing.
CHANCE = 0.001
# The least change that is told. It need not be mended where it is smaller, however sure it is.
ACCURACY = 0.02
LOSS = 0.2  # of the loss before
NATS = 0.1  # of cross-entropy: the true class is then given a tenth more probability


@dataclass(frozen=True)
class Measure:
    """How answers are marked.

    forward: the output of a network for a batch. loss: the mean loss of (output, target). label: the class (N,) of each
    target, where outputs are one value a class.
    """

    forward: Forward
    loss: Loss
    label: Callable[[Tensor], Tensor] = lambda target: target


@dataclass(frozen=True)
class Marks:
    """The losses of samples (N,), and whether each was classified rightly (N,); None where there are no classes."""

    losses: Tensor
    right: Tensor | None

    @property
    def words(self) -> str:
        """The accuracy, or else the loss."""
        return f"loss {self.losses.mean():.3g}" if self.right is None else f"accuracy {self.right.double().mean():.3f}"


@dataclass(frozen=True)
class Gain:
    """What a change brings on the same samples. of: accuracy or loss. sure: beyond chance, and worth a word."""

    of: str
    before: float
    after: float
    samples: int
    sure: bool

    def as_json(self) -> dict[str, Any]:
        """Plain values; NaN and infinities become null, which every JSON reader takes."""
        before, after = (value if math.isfinite(value) else None for value in (self.before, self.after))
        return {"metric": self.of, "before": before, "after": after, "samples": self.samples, "sure": self.sure}

    def __str__(self) -> str:
        digits = ".3f" if self.of == "accuracy" else ".3g"
        return f"{self.of} {self.before:{digits}} → {self.after:{digits}}"


def mark(network: nn.Module, batches: Iterable[Sequence[Tensor]], measure: Measure) -> Marks:
    """The marks of a network in the modes that it is in. batches: (x, y, …)."""
    losses, right = [], []
    with torch.no_grad():
        for batch in batches:
            output, target = measure.forward(network, batch), batch[1]
            output = output.float() if output.dtype in (torch.float16, torch.bfloat16) else output
            losses += [measure.loss(output[i : i + 1], target[i : i + 1]).double() for i in range(len(target))]
            label = measure.label(target)
            if output.ndim == 2 and label.ndim == 1 and not label.is_floating_point():
                right.append((output.argmax(1) == label) & output.isfinite().all(1))
    return Marks(torch.stack(losses).cpu(), torch.cat(right).cpu() if right else None)


def together(marks: Sequence[Marks], places: Tensor) -> Marks:
    """The marks of parts of some samples as those of all. places: (N,) where each mark belongs."""
    back = places.argsort()
    right = [each.right for each in marks if each.right is not None]
    return Marks(torch.cat([each.losses for each in marks])[back], torch.cat(right)[back] if right else None)


def compare(before: Marks, after: Marks) -> Gain:
    """What `after` gains over `before`, sample by sample: of accuracy, or of loss where accuracy says nothing.

    Of accuracy by the exact test of McNemar, which looks at the samples whose answer changes alone; of loss by
    Student's t of the differences.
    """
    losses, n = (before.losses.mean().item(), after.losses.mean().item()), len(before.losses)
    of_loss = Gain("loss", *losses, n, _lowers(before.losses, after.losses, before.right is not None))
    if before.right is None or after.right is None:
        return of_loss
    shares = (before.right.double().mean().item(), after.right.double().mean().item())
    mended, changed = int((after.right & ~before.right).sum()), int((after.right != before.right).sum())
    sure = shares[1] - shares[0] >= ACCURACY and _sign_test(mended, changed) < CHANCE
    of_accuracy = Gain("accuracy", *shares, n, sure)
    return of_loss if of_loss.sure and not sure and before.losses.isfinite().all() else of_accuracy


def _lowers(before: Tensor, after: Tensor, classes: bool) -> bool:
    """Whether losses fall by more than chance, and by enough to tell. classes: whether they are of classes."""
    if not before.isfinite().all():
        return bool(after.isfinite().all())
    fall = (before.mean() - after.mean()).item()
    least = max(LOSS * before.mean().item(), NATS if classes else 0.0)
    return fall >= least and _t_test(before - after) < CHANCE


def own_loss(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of classes (N,), binary cross-entropy of labels (N, columns), squared error of numbers."""
    if target.is_floating_point():
        return F.mse_loss(output.reshape(target.shape), target)
    if target.ndim == output.ndim:
        return F.binary_cross_entropy_with_logits(output, target.to(output.dtype))
    return F.cross_entropy(output, target)


def _sign_test(mended: int, changed: int) -> float:
    """The two-sided chance that of `changed` fair coins so many fall on one side."""
    from scipy.special import bdtrc  # takes a while to import

    return 1.0 if mended <= changed / 2 else min(1.0, 2 * float(bdtrc(mended - 1, changed, 0.5)))


def _t_test(difference: Tensor) -> float:
    """The two-sided chance of a mean as large as that of `difference` (N,) where the true one is 0."""
    from scipy.special import stdtr

    n, spread = len(difference), difference.std().item() if len(difference) > 1 else 0.0
    if not spread > 0:
        return 1.0
    return 2 * float(stdtr(n - 1, -difference.mean().item() / (spread / n**0.5)))
