"""Channels that carry nothing."""

from collections.abc import Iterator

from normlab.doctor.case import Case
from normlab.doctor.finding import Finding
from normlab.doctor.remedies import typed

# Of a layer's channels, from which on they are a finding. Networks that score as well as any have lost up to 60 %:
# mynet on digits with norm=group.
SHARE = 0.75
NOTED = 0.05


def look(case: Case) -> Iterator[Finding]:
    if not case.precise.losses.isfinite().all():
        return
    shares = {name: dead.double().mean().item() for name, dead in case.flow.dead.items()}
    name = max(shares, key=lambda each: shares[each], default=None)
    if name is None or shares[name] < NOTED:
        return
    dead = case.flow.dead[name]
    evidence = (
        f"{int(dead.sum())} of {len(dead)} channels carry nothing: their input does not vary, γ is next to 0, or the "
        f"ReLU behind lets none of {sum(len(batch[0]) for batch in case.train)} training samples through"
    )
    key = typed(case.facts, "a lower optimizer.lr", "a lower learning rate, and no weight decay on γ")
    yield Finding("dead_channels", name, evidence, key, harms=shares[name] >= SHARE)
