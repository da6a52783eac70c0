"""Puts a normalization option into a network that was built without it.

from normlab import replace_norms
from normlab.norms.ghost import Ghost
network = replace_norms(torchvision.models.resnet18(), Ghost(size=16))
"""

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from typing import Any

from torch import Tensor, nn

from normlab.errors import did_you_mean
from normlab.norms.common.base import Norm
from normlab.norms.common.declaration import declaration
from normlab.norms.common.probe import probe
from normlab.norms.none import NoNorm

# Layers on (N, C, *space) that an option can stand for, by the full name of their exact type, with the spatial
# dimensions where the type tells them. Nobody vouches for what a subclass does. timm's are named here, not imported.
DIMS: dict[str, int | None] = {
    "torch.nn.modules.batchnorm.BatchNorm1d": None,
    "torch.nn.modules.batchnorm.BatchNorm2d": 2,
    "torch.nn.modules.batchnorm.BatchNorm3d": 3,
    "torch.nn.modules.batchnorm.SyncBatchNorm": None,
    "torch.nn.modules.instancenorm.InstanceNorm1d": 1,
    "torch.nn.modules.instancenorm.InstanceNorm2d": 2,
    "torch.nn.modules.instancenorm.InstanceNorm3d": 3,
    "torch.nn.modules.normalization.GroupNorm": None,
    "torchvision.models.convnext.LayerNorm2d": 2,
    "timm.layers.norm.GroupNorm": None,
    "timm.layers.norm.GroupNorm1": None,
    "timm.layers.norm.LayerNorm2d": 2,
    "timm.layers.norm.RmsNorm2d": 2,
    "timm.layers.norm_act.BatchNormAct2d": 2,
    "timm.layers.norm_act.GroupNormAct": None,
    "timm.layers.norm_act.GroupNorm1Act": None,
    "timm.layers.norm_act.LayerNormAct2d": 2,
    "timm.layers.norm_act.RmsNormAct2d": 2,
    "timm.models.metaformer.GroupNorm1NoBias": None,
    "timm.models.metaformer.LayerNorm2dNoBias": 2,
}
TORCH_BASES = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
STATE = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def replace_norms(
    network: nn.Module, norm: Norm, sample: Tensor | None = None, keep: Collection[str] = ()
) -> nn.Module:
    """Replaces the normalization layers of `network`, in place, by those of `norm`; returns the network.

    γ, β and running statistics are taken over, the very tensors where both layers have a parameter or both a buffer,
    as far as the new layer has something of the name; so are device, dtype, train or eval mode and `requires_grad`.
    eps, momentum and the like are the option's. A module used at several places stays one. timm's layers that are norm,
    dropout and activation in one become `Sequential(norm, drop, act)`. Under `norm=none` the layer becomes the
    identity, and no bias comes into the convolution before it, which then shifts nothing.

    sample: a batch of inputs, needed for layers that serve several ranks (BatchNorm1d, GroupNorm): it is sent through
    in eval mode to find theirs. keep: names of classes whose modules are left as they are, with all that is in them.

    Raises ValueError, with the network unchanged, where a layer is of a class not known to be a norm of (N, C, *space),
    such as LayerNorm and subclasses that `DIMS` does not list; where the option is no drop-in; where there is nothing
    to replace; where `keep` names a class that the network does not have; where a layer has hooks, which would be lost.
    """
    layers = norm_layers(network, keep)
    _check_keep(network, keep)
    _check_replaceable(layers, norm)
    if not layers and not isinstance(norm, NoNorm):
        raise ValueError(f"norm={norm.name} finds no normalization layer to replace in this network; use norm=none")
    dims = _dims(network, layers, sample)
    new = {layer: _replacement(network, name, layer, norm, dims[name]) for name, layer in layers.items()}
    return put(network, new)


def put(network: nn.Module, new: Mapping[Any, nn.Module]) -> nn.Module:
    """Puts modules in the place of others, by those, wherever these stand in `network`; returns the network."""
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):
            if child in new:
                parent.add_module(name, new[child])
    return new.get(network, network)


def has_hooks(module: nn.Module) -> bool:
    return any("hooks" in key and value for key, value in vars(module).items())


def norm_layers(network: nn.Module, keep: Collection[str] = ()) -> dict[str, nn.Module]:
    """The normalization layers of a network, its own or not, each once, by name; without those in classes to `keep`."""

    def walk(name: str, module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
        if type(module).__name__ in keep:
            return
        if _is_norm(module):
            yield module, name
            return
        for key, child in module.named_children():
            yield from walk(f"{name}.{key}" if name else key, child)

    names: dict[nn.Module, str] = {}
    for module, name in walk("", network):
        names.setdefault(module, name)
    return {name: module for module, name in names.items()}


def _is_norm(module: nn.Module) -> bool:
    """Whether it is a normalization layer, of torch, of ours, or one by the name of its class.

    Blocks whose class name tells of the norm within, such as Conv2dNormActivation, have children with parameters.
    """
    if isinstance(module, TORCH_BASES) or declaration(module) is not None:
        return True
    return "Norm" in type(module).__name__ and all(_first_tensor(child) is None for child in module.children())


def _check_keep(network: nn.Module, keep: Collection[str]) -> None:
    classes = {type(module).__name__ for module in network.modules()}
    for name in keep:
        if name not in classes:
            raise ValueError(f"model.keep: the network has no module of class {name}{did_you_mean(name, classes)}")


def _check_replaceable(layers: dict[str, nn.Module], norm: Norm) -> None:
    unknown: dict[str, list[str]] = {}
    for name, layer in layers.items():
        if _full_name(layer) not in DIMS:
            unknown.setdefault(type(layer).__name__, []).append(name)
        elif has_hooks(layer):
            raise ValueError(f"{name or 'the network'} has hooks, which would be lost: register them afterwards")
    if unknown:
        listed = "; ".join(f"{kind} ({_few(names)})" for kind, names in unknown.items())
        remedy = f"model.keep=[{','.join(unknown)}] leaves them as they are"
        if sum(map(len, unknown.values())) == len(layers):
            remedy += "; there is no other norm, so set norm=none too"
        raise ValueError(f"norm={norm.name} cannot replace {listed}: not known to be norms of (N, C, *space); {remedy}")


def _few(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _dims(network: nn.Module, layers: dict[str, nn.Module], sample: Tensor | None) -> dict[str, int]:
    """The spatial dimensions of each layer's input, by the layer's name."""
    known = {name: DIMS[_full_name(layer)] for name, layer in layers.items()}
    asked = {name: layers[name] for name, dims in known.items() if dims is None}
    if not asked:
        return {name: dims for name, dims in known.items() if dims is not None}
    if sample is None:
        name, layer = next(iter(asked.items()))
        raise ValueError(f"{name or 'the network'} is a {type(layer).__name__}, for several ranks: give a sample")
    _, seen = probe(network, sample, asked)
    for name, layer in asked.items():
        if name not in seen:
            kind = type(layer).__name__
            raise ValueError(f"{name} ({kind}) did not see the sample, so its rank is unknown: model.keep=[{kind}]")
    return {name: seen[name].ndim - 2 if dims is None else dims for name, dims in known.items()}


def _replacement(network: nn.Module, name: str, layer: nn.Module, norm: Norm, dims: int) -> nn.Module:
    try:
        new = norm(_features(layer), dims)
    except ValueError as error:
        raise ValueError(f"{name or 'the network'} ({type(layer).__name__}): {error}") from error
    if not is_drop_in(norm, new):
        raise ValueError(
            f"norm={norm.name} is no drop-in for the norms of any network, being more than a layer: it has to do with "
            "the activation or the convolution beside it; choose another norm, or a network written with it in mind, "
            "such as model=resnet"
        )
    _take_over(network, layer, new)
    if not _full_name(layer).startswith("timm.layers.norm_act."):
        return new
    whole = nn.Sequential(OrderedDict(norm=new, drop=layer.get_submodule("drop"), act=layer.get_submodule("act")))
    whole.training = layer.training
    return whole


def _features(layer: nn.Module) -> int:
    for key in ("num_features", "num_channels"):
        if hasattr(layer, key):
            return getattr(layer, key)
    shape: Any = layer.normalized_shape
    return shape[0]


def is_drop_in(norm: Norm, layer: nn.Module) -> bool:
    """Whether the option consists of this layer alone, and the layer declares that it can replace any other."""
    declared = declaration(layer)
    beside = ("conv2d", "linear", "act")
    return (declared is None or declared.drop_in) and all(getattr(type(norm), k) is getattr(Norm, k) for k in beside)


def _take_over(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    like = _first_tensor(old)
    if like is None:
        like = _first_tensor(network)
    if like is not None:
        new.to(like.device, like.dtype)
    new.train(old.training)
    wanted = [parameter.requires_grad for parameter in old.parameters(recurse=False)]
    if wanted and not any(wanted):
        new.requires_grad_(False)  # also freezes parameters that only the new layer has
    for key in STATE:
        value, place = getattr(old, key, None), getattr(new, key, None)
        if value is not None and place is not None and value.shape == place.shape:
            same = isinstance(value, nn.Parameter) == isinstance(place, nn.Parameter)
            setattr(new, key, value if same else value.detach().clone())
    for further in getattr(new, "further", ()):
        further.load_state_dict({key: value for key, value in new.state_dict().items() if key in STATE})


def _first_tensor(module: nn.Module) -> Tensor | None:
    return next(chain(module.parameters(), module.buffers()), None)


def _full_name(layer: nn.Module) -> str:
    return f"{type(layer).__module__}.{type(layer).__qualname__}"
