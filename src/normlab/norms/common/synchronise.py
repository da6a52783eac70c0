"""Batch statistics over several processes: taken jointly in training, or merged afterwards.

    trainer = Trainer(strategy="ddp", plugins=[Synchronise()])

Where Lightning does not call it, call `Synchronise().apply(network)` before the network is wrapped.
"""

from typing import ClassVar

import torch
from lightning.pytorch.plugins import LayerSync
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from normlab.distributed import collectives
from normlab.distributed.shards import exchanged
from normlab.norms.common.declaration import TORCH, Declaration, declaration
from normlab.norms.common.layer import NormLayer
from normlab.norms.common.running import BatchMoments
from normlab.norms.common.tracing import leaf


class Synchronise(LayerSync):
    """Makes the layers of a network take their batch statistics over all processes in training, on any device.

    Training is then that of one process on the joined batch: outputs, gradients (their sum over ranks, for γ and β)
    and running statistics. Ranks may hold different numbers of samples, and some none, but each must send a batch
    through every layer. Layers change in place: modules, parameters, modes, hooks, sharing and the state dict stay.
    Per-sample layers are left alone. A layer in eval mode neither communicates nor moves.

    It does not help where each process sees large enough batches, and it waits for the others twice a layer and step.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Switches every layer whose declaration says `synchronisable`; a second call changes nothing.

        Raises ValueError, with nothing changed, for other layers with batch statistics that are not frozen.
        """
        _check_synchronisable(model)
        for name, layer in model.named_modules():
            declared = declaration(layer)
            if declared is not None and declared.synchronisable:
                layer.__class__ = exchanged(type(layer), SWITCHED)
                for its_name, moments in layer.named_modules(
                    prefix=name
                ):  # a layer may hold several sets of statistics
                    if isinstance(moments, BatchMoments):
                        moments.synchronised = its_name or type(layer).__name__
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Puts every layer back exactly as it was, in `model` or a copy of it.

        A class that another wrapper has put on top of a layer stays; fully_shard's is put on top of the old class.
        """
        for layer in model.modules():
            if isinstance(layer, BatchMoments):
                vars(layer).pop("synchronised", None)
                layer.__class__ = exchanged(type(layer), PLAIN)  # pyright: ignore[reportAttributeAccessIssue]
        return model


@torch.no_grad()
def merge_statistics(network: nn.Module) -> None:
    """Merges the running statistics of all processes in `network`, in place; for training that is not synchronised.

    Every buffer `running_*` becomes its mean over ranks. A variance of batches that has a mean beside it becomes
    mean_r σ²_r + mean_r (μ_r - μ)², the variance of all ranks' values together. EvoNorm-B0's variance, which has no
    mean, and whitening's matrices, which are averages over batches, are only averaged. All ranks weigh the same.
    Counters stay each rank's own, and so does what MABN and cross-iteration batch norm remember of their last batches.

    This is one collective for the whole network, and every rank must call it. Where ranks agree, or there is only one,
    nothing changes. Ranks must have kept their own statistics until then: DistributedDataParallel needs
    `broadcast_buffers=False`, as it would otherwise copy rank 0's statistics to all before every forward pass.
    """
    running = [(layer, held) for layer in network.modules() if (held := _running_statistics(layer))]
    if not (running and collectives.several()):
        return
    own = [torch.cat([buffer.flatten() for buffer in held.values()]) for _, held in running]
    of_ranks = collectives.gather(torch.cat(own), "the merging of running statistics")
    for (layer, held), values in zip(running, of_ranks.split([len(values) for values in own], 1), strict=True):
        _merge(layer, held, values.double())


def _running_statistics(layer: nn.Module) -> dict[str, Tensor]:
    return {name: b for name, b in layer._buffers.items() if name.startswith("running_") and b is not None}


def _merge(layer: nn.Module, held: dict[str, Tensor], of_ranks: Tensor) -> None:
    """held: the layer's buffers, by name. of_ranks: (ranks, values), each rank's buffers one after the other."""
    of_buffers = dict(zip(held, of_ranks.split([buffer.numel() for buffer in held.values()], 1), strict=True))
    merged = {name: values.mean(0) for name, values in of_buffers.items()}
    declared = declaration(layer)
    if (declared is None or declared.batch_stats) and {"running_mean", "running_var"} <= held.keys():
        merged["running_var"] += of_buffers["running_mean"].var(0, correction=0)
    for name, buffer in held.items():
        buffer.copy_(merged[name].view_as(buffer))


class _Synchronised(BatchMoments, _BatchNorm):
    """torch's batch norm, which in training takes its statistics over all ranks where there are several."""

    plain: ClassVar[type[_BatchNorm]]  # the class that the layer had

    @property
    def declaration(self) -> Declaration:
        return TORCH[self.plain](self)

    @property
    def _eps(self) -> float:
        return self.eps

    @leaf
    def forward(self, input: Tensor) -> Tensor:
        if not self.joint:
            return super().forward(input)
        self._check_input_dim(input)
        if self.affine:
            return self.by_moments(input, self.weight, self.bias)
        return self.by_moments(input, torch.ones_like(self.running_mean), torch.zeros_like(self.running_mean))


class SynchronisedBatchNorm1d(_Synchronised, nn.BatchNorm1d):
    plain = nn.BatchNorm1d


class SynchronisedBatchNorm2d(_Synchronised, nn.BatchNorm2d):
    plain = nn.BatchNorm2d


class SynchronisedBatchNorm3d(_Synchronised, nn.BatchNorm3d):
    plain = nn.BatchNorm3d


SWITCHED: dict[type[nn.Module], type[_Synchronised]] = {
    kind.plain: kind for kind in (SynchronisedBatchNorm1d, SynchronisedBatchNorm2d, SynchronisedBatchNorm3d)
}
PLAIN: dict[type[nn.Module], type[nn.Module]] = {kind: plain for plain, kind in SWITCHED.items()}


def _check_synchronisable(network: nn.Module) -> None:
    refused: dict[str, list[str]] = {}
    for name, layer in network.named_modules():
        if _mixes_alone(layer):
            kind = f"norm={layer.name}" if isinstance(layer, NormLayer) else type(layer).__name__
            refused.setdefault(kind, []).append(name or "the network")
    if refused:
        listed = " and ".join(f"{kind} ({', '.join(names)})" for kind, names in refused.items())
        raise ValueError(
            f"{listed} {'has' if len(refused) == 1 else 'have'} batch statistics that cannot be taken over processes: "
            "choose a norm with `syncs` in docs/norms.md or one of each sample, or set trainer.sync_batchnorm=false"
        )


def _mixes_alone(layer: nn.Module) -> bool:
    """Whether a layer takes statistics of this process's batch only, or may do so as an unknown kind of BatchNorm."""
    declared = declaration(layer)
    if declared is None:
        unknown = isinstance(layer, _BatchNorm) and not isinstance(layer, nn.SyncBatchNorm)
        return unknown and (layer.training or layer.running_mean is None)
    return declared.batch_stats and not declared.synchronisable and (layer.training or not declared.running_stats)
