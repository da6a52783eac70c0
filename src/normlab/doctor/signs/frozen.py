"""A layer whose parameters are frozen while its statistics move."""

from collections.abc import Iterator

from normlab.doctor.case import Case
from normlab.doctor.finding import Finding
from normlab.doctor.remedies import typed


def look(case: Case) -> Iterator[Finding]:
    replay = case.replay
    names = [] if replay is None else [name for name, still in replay.still.items() if still and replay.moved[name]]
    if not names:
        return
    more = f", as {len(names) - 1} others do" if len(names) > 1 else ""
    evidence = f"its parameters take no gradient, but a training step moves its running statistics{more}"
    key = typed(case.facts, "freeze=", "normlab.freeze(network, …), which keeps .train() from it")
    yield Finding("frozen_moves", names[0], evidence, key)
