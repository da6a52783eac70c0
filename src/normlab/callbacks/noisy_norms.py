"""Noise behind each norm layer in training, another in each step.  python train.py callbacks=noisy_norms"""

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from normlab.callbacks.common.changing import Hooked
from normlab.errors import ConfigError
from normlab.norms.common.replace import norm_layers
from normlab.norms.common.watched import channel_axis


class NoisyNorms(Hooked):
    """y ← s · y + m behind each norm layer in training; in evaluation nothing is changed.

    For each batch and channel a mean μ ~ U(-n_mu, n_mu) and a scale σ ~ U(1, n_sigma) are drawn, and from them for each
    value m ~ U(μ - r_mu, μ + r_mu) and s ~ N(σ, r_sigma), where r_sigma is a standard deviation. What the next layer
    gets so has another distribution in each step, as internal covariate shift would have it. A layer that contains its
    activation has the noise behind that. It is a means to test why batch norm helps, and makes no network better.
    Raises ConfigError for a network without norm layers, and for a compiled one.

    Santurkar, Tsipras, Ilyas & Mądry, How Does Batch Normalization Help Optimization?, 2018, arXiv:1805.11604, in the
    appendix on the noise of section 2.
    """

    def __init__(self, n_mu: float = 0.5, n_sigma: float = 1.25, r_mu: float = 0.1, r_sigma: float = 0.1):
        super().__init__()
        self.n_mu, self.n_sigma, self.r_mu, self.r_sigma = n_mu, n_sigma, r_mu, r_sigma

    @override
    def hook(self, network: nn.Module) -> list[RemovableHandle]:
        layers = norm_layers(network)
        if not layers:
            raise ConfigError("callbacks=noisy_norms: this network has no norm layer; leave it out")
        return [layer.register_forward_hook(self._add_noise) for layer in layers.values()]

    def _add_noise(self, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if not layer.training:
            return None
        shape = [1] * output.ndim
        axis = channel_axis(layer, output)
        shape[axis] = output.shape[axis]
        mean = output.new_empty(shape).uniform_(-self.n_mu, self.n_mu)
        scale = output.new_empty(shape).uniform_(1, self.n_sigma)
        means = mean + torch.empty_like(output).uniform_(-self.r_mu, self.r_mu)
        return output * (scale + self.r_sigma * torch.randn_like(output)) + means
