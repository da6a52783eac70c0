"""What lies between a network in training and in evaluation, on the same samples."""

import copy

from normlab.doctor.case import normalising_as_in_training
from normlab.runner.measures.common.finished import FinishedRun


def measure(run: FinishedRun) -> float:
    """The accuracy on the training part by statistics as in training, less that in evaluation mode, of the best one.

    Norm layers alone are as in training, in batches of the run's own size: no dropout, no augmentation. Raises
    ConfigError as `Networks`.
    """
    networks = run.networks
    batches = networks.training_part()
    training = networks.accuracy(normalising_as_in_training(copy.deepcopy(networks.best)), batches)
    return training - networks.accuracy(networks.best, networks.grouped(batches))
