"""Weight decay on the scale γ of norm layers."""

from collections.abc import Iterator

from torch import Tensor

from normlab.doctor.case import Case
from normlab.doctor.finding import Finding


def look(case: Case) -> Iterator[Finding]:
    scales = {f"{name}.weight".removeprefix("."): name for name in case.layers}
    decayed = {key: decay for key, decay in case.facts.decay.items() if decay > 0 and key in scales}
    if not decayed:
        return
    sizes = {key: _size(case, scales[key]) for key in decayed}
    smallest = min(sizes, key=lambda key: sizes[key])
    faint = any(case.flow.dead[scales[key]].any() for key in decayed if scales[key] in case.flow.dead)
    evidence = (
        f"weight decay {max(decayed.values()):g} pulls γ of {len(decayed)} layers to 0; the median |γ| is "
        f"{sizes[smallest]:.2g} in this one{', and channels of it carry nothing' if faint else ''}"
    )
    key = "normlab.parameter_groups(network, weight_decay), which leaves norm parameters and biases out"
    yield Finding("decay_on_gamma", scales[smallest], evidence, key, harms=faint)


def _size(case: Case, layer: str) -> float:
    weight = case.network.get_submodule(layer).weight
    assert isinstance(weight, Tensor)
    return weight.detach().abs().median().item()
