"""Networks cut into shards, one for each process: FSDP2, torch.distributed.fsdp.fully_shard.

Each process keeps its shard of every parameter, of its gradient and of the optimizer's state. A unit's parameters are
gathered for its forward and its backward pass, and its gradients averaged and cut again. Buffers, and so running
statistics, are whole in every process.
"""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.fabric.utilities.optimizer import _optimizer_to_device
from lightning.pytorch import Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins import HalfPrecision
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning_utilities import apply_to_collection
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from typing_extensions import override

from normlab.distributed.shards import cut_like
from normlab.norms.common.declaration import declaration
from normlab.runner.units import blocks, norm_layers


class FullyShard(DDPStrategy):
    """DDP's processes, batches and synchronised layers, with a network that is cut instead of copied.

    A unit is each element of a Sequential or ModuleList, such as a residual block, and what is left of the network.
    Under 16-bit precision norm layers are units of their own, whose parameters stay in float32. Checkpoints are those
    of one process: the first process gathers them, one tensor after the other, into its main memory.

    Lightning's ModelParallelStrategy would not do: it calls no LayerSync, refuses float64, and numbers the optimizer's
    state otherwise than the optimizer. When a fit ends, the network stays cut, on the device where it is.
    """

    @override
    def setup(self, trainer: Trainer) -> None:
        assert self.accelerator is not None
        assert self.model is not None
        self.accelerator.setup(trainer)
        fitting = trainer.state.fn == TrainerFn.FITTING
        if fitting and self._layer_sync:
            self.model = self._layer_sync.apply(self.model)
        self.model = self.precision_plugin.convert_module(self.model)
        network = self.model.network
        assert isinstance(network, nn.Module)
        if not isinstance(network, FSDPModule):
            mesh = init_device_mesh(self.root_device.type, (self.world_size,))
            shard(network, mesh, str(self.precision_plugin.precision))
        self.model_to_device()
        if fitting:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    @override
    def lightning_module_state_dict(self) -> dict[str, Any]:
        return self._whole(super().lightning_module_state_dict())

    @override
    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return self._whole(super().optimizer_state(optimizer))

    @override
    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for wrapped, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer = wrapped.optimizer if isinstance(wrapped, LightningOptimizer) else wrapped
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            of_each = {
                number: {key: cut_like(value, parameters[number]) for key, value in held.items()}
                for number, held in state["state"].items()
            }
            optimizer.load_state_dict(state | {"state": of_each})
            _optimizer_to_device(optimizer, self.root_device)

    @override
    def teardown(self) -> None:
        """Does what DDP's does, except that the network stays on the device of its process group."""
        assert self.accelerator is not None
        assert self.cluster_environment is not None
        if self._layer_sync and self.model is not None:
            self.model = self._layer_sync.revert(self.model)
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()
        self.checkpoint_io.teardown()

    def _whole(self, state: Any) -> Any:
        """The state with whole tensors in the first process, and with None in their place in the others.

        All processes must call it.
        """

        def gathered(cut: DTensor) -> Tensor | None:
            whole = cut.full_tensor()
            return whole.cpu() if self.is_global_zero else None

        return apply_to_collection(state, DTensor, gathered)


class HalfButNorms(HalfPrecision):
    """bf16-true for a network whose norm layers keep parameters and statistics in float32."""

    def __init__(self) -> None:
        super().__init__("bf16-true")

    @override
    def convert_module(self, module: nn.Module) -> nn.Module:
        layers = [layer for layer in module.modules() if declaration(layer)]
        kept = {id(tensor) for layer in layers for tensor in (*layer.parameters(), *layer.buffers())}

        def convert(tensor: Tensor) -> Tensor:
            return tensor if id(tensor) in kept or not tensor.is_floating_point() else tensor.to(torch.bfloat16)

        return module._apply(convert)


def policies(precision: str) -> tuple[MixedPrecisionPolicy, MixedPrecisionPolicy]:
    """The precision of norm layers, and the precision of everything else.

    Under bf16-mixed autocast casts inputs; other parameters are gathered in the 16 bits that it would cast them to.
    Gradients are averaged in float32.
    """
    if precision == "bf16-mixed":
        other = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        return MixedPrecisionPolicy(), other
    if precision == "bf16-true":
        norms = MixedPrecisionPolicy(torch.float32, output_dtype=torch.bfloat16)
        return norms, MixedPrecisionPolicy(reduce_dtype=torch.float32)
    return MixedPrecisionPolicy(), MixedPrecisionPolicy()


@torch.no_grad()
def shard(network: nn.Module, mesh: DeviceMesh, precision: str) -> None:
    """Cuts a network in place, with the first process's values; afterwards its layers' classes are fully_shard's."""
    device = torch.device(mesh.device_type)
    for tensor in (*network.parameters(), *network.buffers()):
        values = tensor.detach().to(device)
        distributed.broadcast(values, 0)
        tensor.copy_(values)
    norms, other = policies(precision)
    apart = norm_layers(network) if norms != other else {}
    for layer in apart.values():  # they are small, so keeping them costs less than gathering them again
        fully_shard(layer, mesh=mesh, mp_policy=norms, reshard_after_forward=False)
    for name, block in blocks(network):
        if name not in apart:
            fully_shard(block, mesh=mesh, mp_policy=other)
    fully_shard(network, mesh=mesh, mp_policy=other)
