"""Finds what is wrong with the normalization of any network.

print(normlab.diagnose(network, train_loader, test_loader))
"""

import pkgutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from normlab.data.common.seeds import kept_random_state
from normlab.doctor import signs
from normlab.doctor.case import Case, Facts
from normlab.doctor.finding import Diagnosis
from normlab.doctor.marks import Forward, Loss, Measure, own_loss
from normlab.doctor.replay import Step
from normlab.doctor.samples import take
from normlab.norms.common.population import declared_or_batch

SAMPLES = 2000  # of each part


def diagnose(
    network: nn.Module,
    train_loader: Iterable[Any],
    test_loader: Iterable[Any],
    loss: Loss | None = None,
    forward: Forward | None = None,
    step: Step | None = None,
    optimizer: Optimizer | None = None,
    steps: int | None = None,
    accumulate: int = 1,
    ranks: Sequence[Mapping[str, Tensor]] = (),
    samples: int = SAMPLES,
) -> Diagnosis:
    """Looks at a trained network, normlab's or not, and says what is wrong with its norm layers.

    train_loader, test_loader: batches (x, y, …), as training took them, and of samples that it did not see. loss: the
    mean loss of (output, target); None: cross-entropy of classes and of labels, squared error of numbers. forward: the
    output (N, …) of a network for a batch; None: network(x). step: the forward and backward passes of a training step,
    of a network and a batch, which is replayed on a copy. optimizer: by which weight decay is looked at. steps: how
    many batches the network was trained on, with which its counters are compared. accumulate: batches an optimizer
    step. ranks: the state dicts of all processes of a training, whose statistics are compared. samples: how many of
    each loader.

    The network, its modes and random numbers stay as they are. Raises ValueError where there is nothing to look at: no
    norm layer, frozen ones alone, or a training loader of a single batch.
    """
    names = {parameter: name for name, parameter in network.named_parameters()}
    groups = [] if optimizer is None else optimizer.param_groups
    decay = {names[p]: group.get("weight_decay", 0.0) for group in groups for p in group["params"] if p in names}
    measure = Measure(forward or _first, loss or own_loss)
    facts = Facts(steps=steps, accumulate=accumulate, decay=decay, ranks=ranks)
    return diagnosis(network, train_loader, test_loader, measure, facts, step, samples)


def diagnosis(
    network: nn.Module,
    train_loader: Iterable[Any],
    test_loader: Iterable[Any],
    measure: Measure,
    facts: Facts,
    step: Step | None = None,
    samples: int = SAMPLES,
) -> Diagnosis:
    """As `diagnose`, for what is known of a training besides. Raises ValueError."""
    count = check_layers(network)
    device = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
    with kept_random_state(device), torch.compiler.set_stance("force_eager"):
        train, test = take(train_loader, samples, device), take(test_loader, samples, device)
        if len(train) < 2:
            raise ValueError(
                "the doctor compares statistics of batches with those of all training samples, and the training part "
                "gives a single batch: take a smaller batch size"
            )
        if not test:
            raise ValueError("the test part gives no sample to compare statistics on")
        case = Case(network, train, test, measure, facts, step)
        said = [finding for look in _signs() for finding in look(case)]
        findings, notes = [each for each in said if each.harms], [each for each in said if not each.harms]
        return Diagnosis(findings, notes, _seen(case, count))


# What libraries derive from torch's layers of single samples, of which no batch statistics are to be expected.
OTHERS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def check_layers(network: nn.Module) -> int:
    """The number of norm layers. Raises ValueError for a network in which none could be ill."""
    declared = {module: declared_or_batch(module) for module in network.modules()}
    layers = {module: facts for module, facts in declared.items() if facts is not None or isinstance(module, OTHERS)}
    kind = type(network).__name__
    if not layers:
        raise ValueError(f"{kind} has no norm layer, so the doctor has nothing to look at")
    if all("train" in vars(layer) or (facts and not facts.axes) for layer, facts in layers.items()):
        # That is how `normlab.freeze` freezes, see tasks/freezing.py, and how norm=frozen declares itself.
        raise ValueError(f"all norm layers of {kind} are frozen, so the doctor has nothing to look at: thaw them first")
    return len(layers)


def _signs() -> Iterator[Any]:
    """The `look` of each file of the folder `signs`."""
    for module in sorted(pkgutil.iter_modules(signs.__path__), key=lambda module: module.name):
        yield import_module(f"{signs.__name__}.{module.name}").look


def _first(network: nn.Module, batch: Any) -> Any:
    return network(batch[0])


def _seen(case: Case, layers: int) -> str:
    by = f" by running statistics, {case.precise.words} by precise ones" if case.keeping else ""
    count = f"{layers} norm layer{'s' * (layers != 1)}"
    return f"{count}; {case.running.words}{by} ({len(case.running.losses)} test samples)"
