"""Processes whose statistics went their own ways, of which one is evaluated and saved."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from normlab.doctor.case import Case
from normlab.doctor.finding import Finding
from normlab.doctor.remedies import typed

# Of a standard deviation. Ranks that normalise and follow together differ by what sums in another order do.
APART = 0.01


def look(case: Case) -> Iterator[Finding]:
    first, *others = case.facts.ranks or [{}]
    apart = {
        name: max(_apart(first, other, name) for other in others)
        for name, layer in case.keeping.items()
        if others and layer._buffers.keys() >= {"running_mean", "running_var"}
    }
    name = max(apart, key=lambda each: apart[each], default=None)
    if name is None or apart[name] <= APART:
        return
    evidence = (
        f"the running means of {len(case.facts.ranks)} processes are up to {apart[name]:.2g} standard deviations "
        "apart, and those of one of them are saved"
    )
    key = typed(case.facts, "trainer.sync_batchnorm=true", "norms that are synchronised, or statistics that are merged")
    yield Finding("unsynchronised_ranks", name, evidence, key, case.stale)


def _apart(one: Mapping[str, Tensor], other: Mapping[str, Tensor], layer: str) -> float:
    mean, var = (f"{layer}.{name}".removeprefix(".") for name in ("running_mean", "running_var"))
    return ((one[mean] - other[mean]).abs() / (one[var] + 1e-5).sqrt()).max().item()
