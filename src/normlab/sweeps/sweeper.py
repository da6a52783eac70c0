"""What our sweepers have in common."""

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from normlab.sweeps.jobs import CheckedJobs


class EngineSweeper(Sweeper):
    """A sweeper with the configuration of the sweep, the jobs that are known, and the launcher that runs them."""

    settings: DictConfig
    loader: CheckedJobs
    engine: Launcher

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        assert isinstance(hydra_context.config_loader, CheckedJobs)
        self.settings, self.loader = config, hydra_context.config_loader
        self.engine = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
