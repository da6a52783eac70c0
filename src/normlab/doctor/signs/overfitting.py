"""A network that has learned its training samples by heart, which no norm mends."""

from collections.abc import Iterator

from torch import Tensor

from normlab.doctor.case import Case
from normlab.doctor.finding import Finding
from normlab.doctor.marks import Marks
from normlab.doctor.remedies import typed

GAP = 0.1  # of accuracy between training and test samples
TIMES = 2.0  # the loss of test samples in that of training samples, where there is no accuracy
SPREADS = 3.29  # normal standard deviations of the difference that it must exceed: one in a thousand by chance


def look(case: Case) -> Iterator[Finding]:
    train, test = case.precise_on_training, case.of_test if case.shift.sure else case.precise
    if not (train.losses.isfinite().all() and test.losses.isfinite().all()) or not _apart(train, test):
        return
    evidence = (
        f"{train.words} on training samples, {test.words} on test samples, each by the statistics that suit them best: "
        "what is left between them is not the norm's"
    )
    key = typed(
        case.facts,
        "more data, data augmentation, optimizer.weight_decay or fewer epochs",
        "more data, augmentation, weight decay or fewer epochs",
    )
    yield Finding("overfitting", None, evidence, key)


def _apart(train: Marks, test: Marks) -> bool:
    if train.right is not None and test.right is not None:
        one, other = train.right.double(), test.right.double()
        gap, worth = one.mean() - other.mean(), GAP
    else:
        one, other = -train.losses, -test.losses
        gap, worth = one.mean() - other.mean(), (TIMES - 1) * train.losses.mean()
    return bool(gap >= worth and gap > SPREADS * (_error(one) + _error(other)).sqrt())


def _error(values: Tensor) -> Tensor:
    """The variance of the mean. A share that is 0 or 1 counts as if half a sample were otherwise."""
    n = len(values)
    return (values.var() + 0.5 / n) / n
