"""The statistics that a saved network ought to have."""

import torch
from torch import nn

from helpers.folders import weights
from normlab import compose
from normlab.runner.build import build


def assert_precise(folder, overrides):
    """Each layer of the last checkpoint has the statistics of what it gets in evaluation, of the training part."""
    parts = build(compose(overrides), folder)
    parts.task.load_state_dict(weights(folder))
    layers = [layer for layer in parts.task.network.modules() if isinstance(layer, nn.BatchNorm1d)]
    seen = []
    for layer in layers:
        layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        parts.task.eval()(torch.cat([batch[0] for batch in parts.data.train_dataloader()]))
    assert len(seen) == len(layers) > 0
    for layer, x in zip(layers, seen, strict=True):
        torch.testing.assert_close(layer.running_mean, x.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer.running_var, x.var(0), rtol=1e-4, atol=1e-5)
