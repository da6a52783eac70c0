"""What precise statistics give a network that has been trained, in place of the running averages of its batches."""

import copy

from normlab.norms.common.estimate import estimate_statistics, layers_with_statistics
from normlab.runner.measures.common.finished import FinishedRun


def measure(run: FinishedRun) -> float:
    """The test accuracy of the last checkpoint with statistics of the whole training part, less that with its own.

    Weights are the same in both. The last checkpoint is taken because the best one was chosen among epochs whose
    statistics were good by luck. Batches are of the run's own size, without augmentation, and frozen statistics count
    as others; 0 for a network without running statistics. Raises ConfigError as `Networks`.

    Wu & Johnson, Rethinking "Batch" in BatchNorm, 2021, arXiv:2105.07576.
    """
    networks = run.networks
    test = networks.grouped(networks.test_part())
    own = networks.accuracy(networks.last, test)
    layers = layers_with_statistics(networks.last)
    if not layers:
        return 0.0
    precise = copy.deepcopy(networks.last)
    estimate_statistics(precise, networks.training_part(), forward=networks.marking.forward, layers=layers)
    return networks.accuracy(precise, test) - own
