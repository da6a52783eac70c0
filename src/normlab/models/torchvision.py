"""torchvision's classification networks under any drop-in norm.  python train.py model=torchvision norm=group"""

from collections.abc import Collection, Sequence
from typing import Any

import torch
import torchvision.models as library
from torch import nn

from normlab.models.common.head import head
from normlab.models.common.zoo import check_name, named
from normlab.norms.common.base import Norm
from normlab.norms.common.replace import replace_norms

AUXILIARY = ("aux1", "aux2", "AuxLogits")  # googlenet's and inception_v3's further outputs in training


def network(
    norm: Norm,
    input_shape: Sequence[int],
    out_features: int,
    name: str = "resnet18",
    pretrained: bool = False,
    keep: Collection[str] = (),
) -> nn.Module:
    """torchvision's own network `name` for images (3, H, W), its norms replaced as `replace_norms` says.

    pretrained: with torchvision's DEFAULT weights, γ, β and running statistics included; the head is new unless the
    data has ImageNet's 1000 outputs too. keep: classes that are left as they are, as `[LayerNorm]` for convnext_tiny;
    vit and swin have no other norms and want `norm=none` besides.
    eps and momentum are the option's: a mobilenet or efficientnet is given its own with norm.eps=1e-3.
    Auxiliary outputs are off. vit and maxvit are built for the size of the images; maxvit takes multiples of 224.
    Raises ValueError for an unknown name, another number of channels, a size that the network is not made for.
    Does not help on tables; squeezenet's outputs end in a ReLU, so that it cannot regress negative values.
    """
    check_name(name, library.list_models(module=library), "torchvision")
    channels, height, width = input_shape
    if channels != 3:
        raise ValueError(f"model.name={name} takes images of 3 channels, the data has {channels}: set data.channels=3")
    arguments = _arguments(name, (height, width), pretrained)
    with named(name, input_shape):
        if pretrained:
            built = library.get_model(name, weights="DEFAULT", **arguments)
            _new_head(built, out_features)
        else:
            built = library.get_model(name, weights=None, num_classes=out_features, **arguments)
    for auxiliary in AUXILIARY:
        if hasattr(built, auxiliary):
            setattr(built, auxiliary, None)
            built.aux_logits = False  # pyright: ignore[reportArgumentType]
    return replace_norms(built, norm, torch.zeros(2, *input_shape), keep)


network.input_dims = 3  # pyright: ignore[reportFunctionMemberAccess]


def _arguments(name: str, size: tuple[int, int], pretrained: bool) -> dict[str, Any]:
    """Further arguments for the constructor of the network's family."""
    match library.get_model_builder(name).__module__.rpartition(".")[2]:
        case "vision_transformer":
            return {"image_size": size[0]}
        case "maxvit":
            return {"input_size": size}
        case "googlenet" | "inception" if not pretrained:
            return {"init_weights": True}  # their default, of which they warn
        case _:
            return {}


def _new_head(built: nn.Module, out_features: int) -> None:
    """Puts an untrained layer of `out_features` in the place of the one that gives ImageNet's classes."""
    last: Any = head(built)
    key = next(key for key, module in built.named_modules() if module is last)
    if isinstance(last, nn.Linear):
        if last.out_features != out_features:
            built.set_submodule(key, nn.Linear(last.in_features, out_features, last.bias is not None))
    elif last.out_channels != out_features:
        built.set_submodule(key, nn.Conv2d(last.in_channels, out_features, kernel_size=1))
