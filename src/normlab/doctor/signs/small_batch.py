"""Batches, or shares of them, too small for their statistics."""

from collections.abc import Iterator

from normlab.doctor.case import Case
from normlab.doctor.finding import Finding
from normlab.doctor.marks import compare
from normlab.doctor.remedies import typed

# How far a batch's mean is off, in standard deviations. Independent values would be off by 1/√n: below six of them the
# noise is told. Batch norm loses accuracy from about eight images a process on (Wu & He 2018, table 2).
NOISY = 6**-0.5


def look(case: Case) -> Iterator[Finding]:
    facts, noise = case.facts, {name: each for name, each in case.noise.items() if each > NOISY}
    noisy = max(noise, key=lambda name: noise[name], default=None)
    loss = compare(case.as_in_training, case.precise) if noisy is not None else None
    harms = loss is not None and loss.sure
    if noisy is None:
        evidence = f"statistics are those of {case.batch_size} samples"
    else:
        evidence = (
            f"the mean of a batch of {case.batch_size} is off by {noise[noisy]:.2g} standard deviations, as that of "
            f"{max(1, round(noise[noisy] ** -2))} independent values; test samples in such batches, normalised as in "
            f"training: {loss}, by precise statistics"
        )
    if facts.accumulate > 1:
        whole = facts.accumulate * case.batch_size
        said = f"{facts.accumulate} batches are added up to {whole} samples a step, which is no batch of {whole}: "
        key = typed(facts, f"data.batch_size={whole} trainer.accumulate_grad_batches=1", f"batches of {whole} samples")
        yield Finding("accumulation", noisy, f"{said}{evidence}", f"{key}, or norm=group", harms=harms)
    elif facts.processes > 1 and not facts.synchronised:
        said = f"each of {facts.processes} processes normalises by its own batch: "
        key = typed(facts, "trainer.sync_batchnorm=true", "torch.nn.SyncBatchNorm, or normlab's norm=sync")
        yield Finding("unsynchronised_ranks", noisy, f"{said}{evidence}", key, harms=harms)
    elif noisy is not None:
        key = typed(facts, "a larger data.batch_size, or norm=group", "larger batches, or a norm without batches")
        yield Finding("batch_too_small", noisy, evidence, key, harms=harms)
