"""NaN or inf in what a network keeps."""

from collections.abc import Iterator

import torch

from normlab.doctor.case import Case
from normlab.doctor.finding import Finding
from normlab.doctor.remedies import precise, typed


def look(case: Case) -> Iterator[Finding]:
    held = [*case.network.named_buffers(), *case.network.named_parameters()]
    bad = [name for name, tensor in held if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    skipping = typed(case.facts, "nonfinite=skip", "leave such batches out before the forward pass")
    if bad:
        layer, _, key = bad[0].rpartition(".")
        mended = not any(name in bad for name, _ in case.network.named_parameters())
        evidence = f"{key} holds NaN or inf; once in, they stay, as each batch keeps a share of what was"
        remedy = f"{precise(case.facts)}; {skipping}" if mended else f"an earlier checkpoint; {skipping}"
        yield Finding("nan_history", layer or None, evidence, remedy, case.stale if mended else None)
    elif case.facts.skipped:
        evidence = f"{case.facts.skipped} training batches with NaN or inf were left out"
        yield Finding("nan_history", None, evidence, "look at these batches: train.log names the first", harms=False)
