"""Answers that depend on the other samples of their batch."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from normlab.doctor.case import LARGE, Case
from normlab.doctor.finding import Finding
from normlab.doctor.marks import Gain, compare, mark
from normlab.doctor.remedies import typed
from normlab.doctor.samples import Batch, regrouped
from normlab.norms.common.declaration import TORCH

# Of the spread of all answers. Sums in another order differ by 1e-6 in float32, and by 1e-2 in 16 bits.
TOLERANCE = 0.03


def look(case: Case) -> Iterator[Finding]:
    change = _change(case)
    if change <= TOLERANCE:
        return
    evidence = f"in eval mode an answer changes by {change:.0%} of the answers' spread with the neighbours in its batch"
    training = [name for name, layer in case.network.named_modules() if layer.training]
    without = [
        name for name, (_, declared) in case.layers.items() if declared.batch_stats and not declared.running_stats
    ]
    if training:
        network = copy.deepcopy(case.network)
        for module in network.modules():
            module.training = False
        gain = _gain(case, network)
        yield Finding(
            "leaks_batch", training[0], f"{evidence}: .eval() does not reach it", "let .eval() reach it", gain
        )
    elif without:
        name = without[0]
        key = typed(case.facts, "norm=batch norm.track_running_stats=true", "track_running_stats=True")
        # A layer of normlab's that takes a test batch's statistics was chosen for that; torch's has lost its own.
        chosen = type(case.network.get_submodule(name)) not in TORCH
        said = f"{evidence}: it has no running statistics"
        yield Finding("leaks_batch", name, said, key, None if chosen else _tracked(case), harms=not chosen)
    else:
        yield Finding("leaks_batch", None, evidence, "look for what mixes samples besides the norm layers")


def _change(case: Case) -> float:
    """How far answers move, of their standard deviation, where half of their batch is replaced by other samples."""
    batch = regrouped(case.test, LARGE)[0]
    half = len(batch[0]) // 2
    if len(batch) > 2 or half < 2:
        return 0.0
    with torch.no_grad():
        whole = _answer(case, batch)[:half]
        alone = _answer(case, [tensor[:half] for tensor in batch])
    spread = whole.std()
    return ((whole - alone).abs().max() / spread).item() if spread > 0 else 0.0


def _answer(case: Case, batch: Batch) -> Tensor:
    return case.measure.forward(copy.deepcopy(case.network), batch).double()


def _gain(case: Case, network: nn.Module) -> Gain:
    """What samples gain that are asked two at a time."""
    pairs = regrouped(case.test, 2)
    return compare(mark(copy.deepcopy(case.network), pairs, case.measure), mark(network, pairs, case.measure))


def _tracked(case: Case) -> Gain:
    """As `_gain`, with running statistics, estimated from the training samples, for the layers that have none."""
    network = copy.deepcopy(case.network)
    for name, (layer, _) in case.layers.items():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:
            tracking = type(layer)(layer.num_features, layer.eps, layer.momentum, layer.affine).to(_device(case))
            tracking.load_state_dict(layer.state_dict(), strict=False)
            parent, _, own = name.rpartition(".")
            setattr(network.get_submodule(parent), own, tracking.eval())
    return _gain(case, case.estimated(network, case.train) or network)


def _device(case: Case) -> torch.device:
    return case.test[0][0].device
