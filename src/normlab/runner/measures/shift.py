"""How much a network loses where its inputs are distributed otherwise than they were."""

from statistics import fmean

import torch

from normlab.data.common.seeds import generator
from normlab.data.tables.embeddings import Encoded
from normlab.errors import ConfigError
from normlab.runner.measures.common.finished import FinishedRun

CONTRAST, BRIGHTNESS = 0.3, 1.0


def measure(run: FinishedRun) -> float:
    """The accuracy of the best checkpoint on the test part less its mean under three changes of its inputs.

    What the network is given is multiplied by 0.3, has 1 added, or normal noise of standard deviation 1, which is the
    same for every run on the same samples. Raises ConfigError for a network that is given categories, and as
    `Networks`.
    """
    networks = run.networks
    if isinstance(networks.best, Encoded):
        raise ConfigError(f"{run.name} has data.categories=embed: categories have no contrast and no brightness")
    batches = networks.grouped(networks.test_part())
    sizes = [len(x) for x, *_ in batches]
    noise = torch.randn((sum(sizes), *batches[0][0].shape[1:]), generator=generator("shift")).split(sizes)
    changed = (
        [(x * CONTRAST, *rest) for x, *rest in batches],
        [(x + BRIGHTNESS, *rest) for x, *rest in batches],
        [(x + added.to(x), *rest) for (x, *rest), added in zip(batches, noise, strict=True)],
    )
    under = [networks.accuracy(networks.best, each) for each in changed]
    return networks.accuracy(networks.best, batches) - fmean(under)
