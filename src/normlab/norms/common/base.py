"""The contract of a normalization option: one object gives a network its layers, their neighbours and activations."""

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

from torch import nn

Order = Literal["norm_act", "act_norm"]
ORDERS: tuple[Order, ...] = ("norm_act", "act_norm")


class Norm(ABC):
    """A normalization variant, as `conf/norm/<name>.yaml` builds it and a network uses it.

    `norm(num_features, dims)` gives the layer, `norm.conv2d` and `norm.linear` the layer before it, `norm.act` the
    activation after it, `norm.order` checks on which side of the activation it stands. Subclasses are frozen
    dataclasses whose fields are the keys of the yaml file, and write `layer`.
    """

    carries_activation: ClassVar[bool] = False

    def __post_init__(self) -> None:
        eps, momentum = getattr(self, "eps", None), getattr(self, "momentum", None)
        if eps is not None and not 0 < eps < math.inf:
            raise ValueError(f"norm={self.name}: eps={eps} is no finite number above 0")
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(f"norm={self.name}: momentum={momentum} is not between 0 and 1")

    def __call__(self, num_features: int, dims: int, act: bool = True) -> nn.Module:
        """One layer for inputs of shape (N, num_features, *space) with `dims` spatial dimensions, 0 to 3.

        `act=False` marks a norm without an activation after it, such as one on the output.
        Raises ValueError where the variant has no such layer.
        """
        if num_features < 1:
            raise ValueError(f"norm={self.name}: num_features={num_features}; a layer needs at least one feature")
        if dims not in range(4):
            raise ValueError(f"norm={self.name}: dims={dims}; there are layers for 0 to 3 spatial dimensions")
        if self.carries_activation and not act:
            raise ValueError(f"norm={self.name} contains an activation and cannot stand where the network has none")
        return self.layer(num_features, dims)

    @abstractmethod
    def layer(self, num_features: int, dims: int) -> nn.Module:
        """The variant's layer; the arguments are checked already."""

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    @property
    def bias(self) -> bool:
        """Whether the layer before the norm needs a bias: no where the norm shifts every channel itself."""
        return not getattr(self, "affine", True)

    def conv2d(self, *args: Any, **kwargs: Any) -> nn.Module:
        """The convolution in front of the norm; arguments as `nn.Conv2d`."""
        return nn.Conv2d(*args, **kwargs)

    def linear(self, *args: Any, **kwargs: Any) -> nn.Module:
        """The dense layer in front of the norm; arguments as `nn.Linear`."""
        return nn.Linear(*args, **kwargs)

    def act(self, module: nn.Module) -> nn.Module:
        """The activation beside the norm, or Identity where the norm contains one."""
        return nn.Identity() if self.carries_activation else module

    def order(self, order: str) -> Order:
        """Checks and returns `order`: norm before activation (`norm_act`) or after it (`act_norm`)."""
        if order not in ORDERS:
            raise ValueError(f"model.order={order}: expected one of {', '.join(ORDERS)}")
        if order == "act_norm" and self.carries_activation:
            raise ValueError(f"model.order=act_norm: norm={self.name} contains the activation; use norm_act")
        return order
