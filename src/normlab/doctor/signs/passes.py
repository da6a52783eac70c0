"""Statistics that more than the training batches have moved, or each of these more than once."""

from collections.abc import Iterator

from normlab.doctor.case import Case
from normlab.doctor.finding import Finding

ONCE = "one forward pass a step; of activations that are computed again, one that moves the statistics"
EVALUATING = "network.eval() before every pass that is no training"


def look(case: Case) -> Iterator[Finding]:
    if (name := _moved_by_evaluation(case)) is not None:
        evidence = "evaluating a batch in eval mode moves its statistics"
        yield Finding("touched_outside_training", name, evidence, "let .eval() reach the layer", case.stale)
    elif (several := _several_in_a_step(case)) is not None:
        yield Finding("two_forwards", *several, ONCE, case.stale)
    elif (counted := _counted(case)) is not None:
        name, count, batches = counted
        evidence = f"its statistics have moved {count} times in {batches} training batches"
        if count % batches:
            yield Finding("touched_outside_training", name, evidence, EVALUATING, case.stale)
        else:
            evidence += f", {count // batches} times for each"
            yield Finding("two_forwards", name, evidence, ONCE, case.stale)


def _moved_by_evaluation(case: Case) -> str | None:
    assert len(case.running.losses)  # the copy has evaluated
    before = dict(case.given.named_buffers())
    for name in case.keeping:
        for buffer, value in case.network.get_submodule(name).named_buffers(prefix=name):
            old = before[buffer]
            if not ((value == old) | (value.isnan() & old.isnan())).all():
                return name
    return None


def _several_in_a_step(case: Case) -> tuple[str, str] | None:
    """A layer that the replay of a training step moves oftener than a forward pass runs it, and how often."""
    replay = case.replay
    if replay is None:
        return None
    for name, count in replay.counted.items():
        calls = replay.calls[name]
        if calls and count > calls:
            return name, f"one training step moves its statistics {count} times, and a forward pass {calls}"
    return None


def _counted(case: Case) -> tuple[str, int, int] | None:
    """A layer whose statistics moved oftener than there were batches, how often, and by how many batches."""
    steps, replay = case.facts.steps, case.replay
    if not steps or replay is None:
        return None
    for name, layer in case.keeping.items():
        counter, batches = getattr(layer, "num_batches_tracked", None), steps * replay.calls[name]
        if counter is not None and 0 < batches < int(counter):
            return name, int(counter), batches
    return None
