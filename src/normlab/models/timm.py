"""timm's image networks under any drop-in norm.  python train.py model=timm model.name=resnet26t norm=group"""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import nn

from normlab.models.common.zoo import check_name, named
from normlab.norms.common.base import Norm
from normlab.norms.common.replace import replace_norms


def network(
    norm: Norm,
    input_shape: Sequence[int],
    out_features: int,
    name: str = "resnet10t",
    pretrained: bool = False,
    keep: Collection[str] = (),
) -> nn.Module:
    """timm's own network `name` for images (C, H, W), its norms replaced as `replace_norms` says.

    name: as `timm.list_models()` has it, or with the tag of its weights, as resnet18.a1_in1k. pretrained: with timm's
    weights, γ, β and running statistics included; timm fits the head and the first convolution to the data.
    keep: classes that are left as they are, as `[LayerNorm]`. eps and momentum are the option's. Networks made for one
    size of images, such as a ViT, are built for the data's.
    Raises ValueError for an unknown name, for pretrained weights that there are not, for a size that the network is not
    made for.
    """
    import timm  # an extra: only whoever chooses it needs it

    architecture = name.partition(".")[0]
    check_name(architecture, timm.list_models(), "timm")
    arguments: dict[str, Any] = {"num_classes": out_features, "in_chans": input_shape[0]}
    with named(name, input_shape):
        weights = timm.get_pretrained_cfg(name)
        if weights is not None and weights.fixed_input_size:
            arguments["img_size"] = tuple(input_shape[1:])
        built = timm.create_model(name, pretrained=pretrained, **arguments)
    return replace_norms(built, norm, torch.zeros(2, *input_shape), keep)


network.input_dims = 3  # pyright: ignore[reportFunctionMemberAccess]
