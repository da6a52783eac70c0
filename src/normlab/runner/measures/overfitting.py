"""How much better a network does on the samples that it was trained on."""

from normlab.runner.measures.common.finished import FinishedRun


def measure(run: FinishedRun) -> float:
    """The accuracy of the best checkpoint on the training part less its test accuracy.

    Samples are not augmented, and all are looked at but those that drop_last leaves out. Raises ConfigError for a run
    without a test accuracy, and as `Networks`.
    """
    networks = run.networks
    training = networks.accuracy(networks.best, networks.grouped(networks.training_part()))
    return training - run.test_accuracy
