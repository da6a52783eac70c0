"""The evidence of a diagnosis: the same samples under several statistics, and what a run says of itself."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from normlab.doctor.flow import Flow, watch
from normlab.doctor.inputs import chance_of_alike
from normlab.doctor.marks import CHANCE, Gain, Marks, Measure, compare, mark, together
from normlab.doctor.replay import Replay, Step, replayed
from normlab.doctor.samples import Batch, regrouped
from normlab.norms.common.declaration import Declaration
from normlab.norms.common.estimate import estimate_statistics, keeps_statistics
from normlab.norms.common.population import declared_or_batch, population_of

LARGE = 128  # samples of a batch whose statistics hardly differ from those of all data


@dataclass(frozen=True)
class Facts:
    """What is known of the training.

    configured: whether normlab ran it, so that remedies are keys of its configuration. steps: how many batches the
    statistics followed; None: not known. accumulate: batches an optimizer step. processes, synchronised: of the
    training. decay: the weight decay of each parameter, by its name in the network. skipped: batches with NaN or inf
    that were left out. ranks: the network's state in all processes, where it was asked for.
    """

    configured: bool = False
    steps: int | None = None
    accumulate: int = 1
    processes: int = 1
    synchronised: bool = False
    decay: Mapping[str, float] = field(default_factory=dict)
    skipped: int = 0
    ranks: Sequence[Mapping[str, Tensor]] = ()


class Case:
    """One network under diagnosis. What it shows is measured when it is first asked for, on copies of it.

    train, test: batches (x, y, …) on the network's device. step: what a training step does with a network and a batch.
    """

    def __init__(
        self,
        network: nn.Module,
        train: Sequence[Batch],
        test: Sequence[Batch],
        measure: Measure,
        facts: Facts,
        step: Step | None = None,
    ):
        self.given, self.train, self.test, self.measure, self.facts = network, train, test, measure, facts
        self.step = step
        self.network = copy.deepcopy(network).eval()
        self.batch_size = len(train[0][0])

    @cached_property
    def layers(self) -> dict[str, tuple[nn.Module, Declaration]]:
        """The norm layers, with what they declare, by name."""
        declared = {name: (module, declared_or_batch(module)) for name, module in self.network.named_modules()}
        return {name: (module, facts) for name, (module, facts) in declared.items() if facts is not None}

    @cached_property
    def keeping(self) -> dict[str, nn.Module]:
        """The layers whose running statistics training moves."""
        return {name: layer for name, (layer, _) in self.layers.items() if keeps_statistics(layer)}

    @cached_property
    def mixing(self) -> bool:
        """Whether training normalises samples by others of their batch."""
        return any(declared.batch_stats for _, declared in self.layers.values())

    # The same samples under several statistics.

    @cached_property
    def running(self) -> Marks:
        return self._marks(self.network, self.test)

    @cached_property
    def precise(self) -> Marks:
        """By statistics of the training samples for the weights of now."""
        return self.running if self.precise_network is None else self._marks(self.precise_network, self.test)

    @cached_property
    def precise_on_training(self) -> Marks:
        return self._marks(self.precise_network or self.network, self.train)

    @cached_property
    def of_test(self) -> Marks:
        """By statistics of the test samples: of one half of them for the other, so that no sample helps itself."""
        halves = [[[tensor[half::2] for tensor in batch] for batch in self.test] for half in (0, 1)]
        places = torch.arange(len(self.running.losses)).split([len(batch[0]) for batch in self.test])
        order = torch.cat([batch[half::2] for half in (0, 1) for batch in places])
        marks: list[Marks] = []
        for half, other in (halves, halves[::-1]):
            network = self.estimated(self.network, [batch for batch in other if len(batch[0])])
            if network is None:
                return self.running
            marks.append(self._marks(network, [batch for batch in half if len(batch[0])]))
        return together(marks, order)

    @cached_property
    def as_in_training(self) -> Marks:
        """The test samples in batches of the training's size, normalised as training does it."""
        network = normalising_as_in_training(copy.deepcopy(self.network))
        return self._marks(network, regrouped(self.test, self.batch_size))

    @cached_property
    def precise_network(self) -> nn.Module | None:
        """A copy with statistics estimated anew from the training samples; None where there are none to estimate."""
        return self.estimated(self.network, self.train)

    @cached_property
    def stale(self) -> Gain:
        """What precise statistics gain over the running ones."""
        return compare(self.running, self.precise)

    @cached_property
    def shift(self) -> Gain:
        """What statistics of the test samples gain over those of the training samples."""
        return compare(self.precise, self.of_test)

    @cached_property
    def parts_differ(self) -> bool:
        """Whether training and test samples are distributed otherwise, beyond chance."""
        alike = chance_of_alike(self.network, self.keeping, self.train, self.test, self.measure.forward)
        return alike < CHANCE

    # What goes through the layers.

    @cached_property
    def flow(self) -> Flow:
        """What the training samples do in the layers, in evaluation by precise statistics."""
        network = self.precise_network or self.network
        return watch(network, regrouped(self.train, LARGE), self.measure.forward)

    @cached_property
    def drift(self) -> dict[str, tuple[float, float]]:
        """For each layer how far its running statistics are off.

        The root mean square over channels of the difference of means, in standard deviations, and of the logarithm of
        the ratio of standard deviations.
        """
        if self.precise_network is None:
            return {}
        precise = dict(self.precise_network.named_modules())
        return {
            name: distance(layer, precise[name])
            for name, layer in self.keeping.items()
            if layer._buffers.keys() >= {"running_mean", "running_var"}
        }

    @cached_property
    def noise(self) -> dict[str, float]:
        """For each layer how far a training batch's mean is off, in standard deviations of all samples.

        That of the median channel.
        """
        return _noise(self)

    @cached_property
    def replay(self) -> Replay | None:
        """What one training step does to the layers; None where it cannot be replayed."""
        return replayed(self.given, self.train[0], self.measure, self.step)

    def _marks(self, network: nn.Module, batches: Sequence[Batch]) -> Marks:
        return mark(network, batches, self.measure)

    def estimated(self, network: nn.Module, batches: Sequence[Batch]) -> nn.Module | None:
        """A copy with statistics of these samples; None where there are none to estimate."""
        network = copy.deepcopy(network)
        for module in network.modules():  # what `normlab.freeze` froze is to be estimated too
            vars(module).pop("train", None)
        if not any(map(keeps_statistics, network.modules())):
            return None
        for layer in filter(keeps_statistics, network.modules()):
            for buffer in layer.buffers():  # a NaN there would stay in what is averaged
                if buffer.is_floating_point() and not buffer.isfinite().all():
                    buffer.nan_to_num_(1.0, 1.0, 1.0)
        try:
            estimate_statistics(network, regrouped(batches, LARGE), forward=self.measure.forward)
        except ValueError:  # the inputs of a layer hold NaN, or a single value
            return None
        return network


def normalising_as_in_training(network: nn.Module) -> nn.Module:
    """Puts the norm layers of a network in training mode, and leaves its other layers as they are; returns it."""
    for module in network.modules():  # some of normlab's layers train along with the layer before them
        if declared_or_batch(module) is not None or type(module).__module__.startswith("normlab.norms."):
            module.train()
    return network


def distance(layer: nn.Module, precise: nn.Module) -> tuple[float, float]:
    """See `Case.drift`."""
    (mean, var), (true_mean, true_var) = (
        [each.get_buffer(name).double() for name in ("running_mean", "running_var")] for each in (layer, precise)
    )
    spread, true_spread = ((each + 1e-5).sqrt() for each in (var, true_var))  # torch's ε, for channels that stand still
    mean, ratio = (mean - true_mean) / true_spread, (spread / true_spread).log()
    return mean.square().mean().sqrt().item(), ratio.square().mean().sqrt().item()


def _noise(case: Case) -> dict[str, float]:
    """See `Case.noise`; without layers that saw fewer than five whole batches, whose means would tell nothing."""
    network = copy.deepcopy(case.network)
    layers = {name: network.get_submodule(name) for name in case.keeping}
    means: dict[str, list[Tensor]] = {name: [] for name in layers}
    populations = {name: population_of(layer) for name, layer in layers.items()}

    def seeing(name: str) -> Callable[..., None]:
        def see(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0]
            means[name].append(x.transpose(0, 1).flatten(1).mean(1).double())
            populations[name].see(x)

        return see

    for name, layer in layers.items():
        layer.register_forward_pre_hook(seeing(name))
    with torch.no_grad():
        for batch in case.train:
            if len(batch[0]) == case.batch_size:
                case.measure.forward(network, batch)
    spreads = {name: populations[name].biased_variance.sqrt() for name, each in means.items() if len(each) >= 5}
    return {name: (torch.stack(means[name]).std(0) / spread).nanmedian().item() for name, spread in spreads.items()}
