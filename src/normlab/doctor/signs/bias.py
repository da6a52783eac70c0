"""A bias that the norm layer behind it takes off again. It harms nothing."""

from collections.abc import Iterator

from normlab.doctor.case import Case
from normlab.doctor.finding import Finding


def look(case: Case) -> Iterator[Finding]:
    biases: dict[str, int] = {}
    for name, before in case.flow.before.items():
        declared, bias = case.layers[name][1], getattr(case.network.get_submodule(before), "bias", None)
        if bias is not None and declared.centred and declared.axes and "channel" not in declared.axes:
            biases[before] = bias.numel()
    if biases:
        evidence = (
            f"the norm layer behind takes the mean off, so that {sum(biases.values())} parameters change nothing: the "
            f"biases of {', '.join(biases)}"
        )
        yield Finding("cancelled_bias", next(iter(biases)), evidence, "bias=False there", harms=False)
