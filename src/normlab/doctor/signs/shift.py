"""Test data of another kind than the training data."""

from collections.abc import Iterator

from normlab.doctor.case import Case
from normlab.doctor.finding import Finding
from normlab.doctor.remedies import typed


def look(case: Case) -> Iterator[Finding]:
    if not case.precise.losses.isfinite().all() or not case.shift.sure or not case.parts_differ:
        return
    evidence = (
        "statistics of the test samples answer them better than precise ones of the training samples: the layers' "
        "inputs are distributed otherwise, as by another brightness, contrast, noise or unit"
    )
    key = typed(
        case.facts,
        "callbacks=prediction_time (action=test), or the same preparation of both parts",
        "normlab.estimate_statistics(network, test_loader), or the same preparation of both parts",
    )
    yield Finding("shift", None, evidence, key, case.shift)
