"""The test accuracy of the best checkpoint."""

from normlab.runner.measures.common.finished import FinishedRun


def measure(run: FinishedRun) -> float:
    """The share of right answers, as the run's result.json has it. Raises ConfigError for a run without one."""
    return run.test_accuracy
