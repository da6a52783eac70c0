"""Running statistics that are not those of the training data now, and a momentum that makes them so."""

import math
from collections.abc import Iterator

from torch import nn

from normlab.doctor.case import Case
from normlab.doctor.finding import Finding
from normlab.doctor.remedies import precise, typed

# torch's momentum is the weight of the new batch. That of Keras and TensorFlow, 0.9 to 0.999, is of the old value.
COMPLEMENT = 0.9
UNUSUAL = 0.5  # more than half of the statistics are then those of the last batch
FORGOTTEN = 3  # steps · momentum, below which more than e⁻³ = 5 % of the first values, 0 and 1, are still in


def look(case: Case) -> Iterator[Finding]:
    if not case.running.losses.isfinite().all():
        return  # that has a cause of its own
    unusual = {name: momentum for name, layer in case.keeping.items() if (momentum := _momentum(layer)) > UNUSUAL}
    if unusual:
        yield _complement(case, unusual)
    elif case.stale.sure:
        yield _stale(case)


def _complement(case: Case, unusual: dict[str, float]) -> Finding:
    name, momentum = max(unusual.items(), key=lambda pair: pair[1])
    evidence = (
        f"momentum {momentum:g} makes {momentum:.0%} of the running statistics those of the last batch of "
        f"{case.batch_size}; torch's momentum is the weight of the new batch, and Keras' {momentum:g} is torch's "
        f"{1 - momentum:.3g}"
    )
    harms = momentum >= COMPLEMENT or case.stale.sure
    key = typed(case.facts, f"norm.momentum={1 - momentum:.3g}", f"momentum={1 - momentum:.3g} in the layers")
    return Finding("momentum", name, evidence, key, case.stale, harms)


def _stale(case: Case) -> Finding:
    name = max(case.drift, key=lambda each: sum(case.drift[each]), default=None)
    evidence = "precise statistics, of training samples for the weights of now, answer better than the running ones"
    if name is not None:
        mean, spread = case.drift[name]
        evidence += (
            f"; a running mean is off by {mean:.2g} standard deviations, a spread by a factor of {_factor(spread)}"
        )
    key = precise(case.facts)
    momentum, steps = (None if name is None else _momentum(case.keeping[name])), case.facts.steps
    if momentum and steps and momentum * steps < FORGOTTEN:
        evidence += f"; by {steps} batches of momentum {momentum:g} the first values, 0 and 1, were not forgotten"
        key += typed(case.facts, ", or norm.momentum=0.1", ", or a momentum of 0.1")
    return Finding("stale_statistics", name, evidence, key, case.stale)


def _factor(log: float) -> str:
    return f"{math.exp(log):.2g}"


def _momentum(layer: nn.Module) -> float:
    """The weight of a new batch; 0 where a layer takes the cumulative average."""
    momentum = getattr(layer, "momentum", None)
    return momentum if isinstance(momentum, float | int) else 0.0
