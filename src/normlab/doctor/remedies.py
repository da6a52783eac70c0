"""What to change: a key of a configuration that normlab runs, or a line of a person's own loop."""

from normlab.doctor.case import Facts


def typed(facts: Facts, key: str, own: str) -> str:
    """The key for a run of normlab, what to write for another."""
    return key if facts.configured else own


def precise(facts: Facts) -> str:
    """What gives a network precise statistics."""
    return typed(facts, "callbacks=precise_bn", "normlab.estimate_statistics(network, train_loader) before evaluating")
