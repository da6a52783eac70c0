"""Whether the samples of two parts are distributed otherwise, as the first norm layer gets them."""

from collections.abc import Callable, Collection, Iterable

import torch
from torch import Tensor, nn

from normlab.doctor.marks import Forward
from normlab.doctor.samples import Batch


def chance_of_alike(
    network: nn.Module, layers: Collection[str], one: Iterable[Batch], other: Iterable[Batch], forward: Forward
) -> float:
    """The chance of inputs of the first layer as far apart as these, were both parts of one distribution.

    Its channels' means and squares in each sample are compared by Welch's t, with Bonferroni's correction for the
    number of comparisons. The inputs of later layers would not do: a network that has learned its training samples by
    heart treats others in another way.
    """
    first, second = (_moments(network, layers, part, forward) for part in (one, other))
    if min(len(first), len(second)) < 2:
        return 1.0
    error = (first.var(0) / len(first) + second.var(0) / len(second)).sqrt()
    apart = ((first.mean(0) - second.mean(0)).abs() / error).nan_to_num(0.0, 0.0)
    return min(1.0, torch.special.erfc(apart.max() / 2**0.5).item() * len(apart))


def _moments(network: nn.Module, layers: Collection[str], batches: Iterable[Batch], forward: Forward) -> Tensor:
    """Mean and mean square of each channel of the first layer's inputs, for each sample (N, 2 C)."""
    seen: list[tuple[str, Tensor]] = []

    def seeing(name: str) -> Callable[..., None]:
        def see(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].double().flatten(2) if args[0].ndim > 2 else args[0].double().unsqueeze(2)
            if not seen or seen[0][0] == name:
                seen.append((name, torch.cat([x.mean(2), x.square().mean(2)], dim=1)))

        return see

    handles = [network.get_submodule(name).register_forward_pre_hook(seeing(name)) for name in layers]
    with torch.no_grad():
        for batch in batches:
            forward(network, batch)
    for handle in handles:
        handle.remove()
    return torch.cat([moments for _, moments in seen])
