"""What our sweepers have in common."""

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class EngineSweeper(Sweeper):
    """A sweeper with the configuration of the sweep, and the launcher that runs its jobs."""

    settings: DictConfig
    engine: Launcher

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.settings, self.loader = config, hydra_context.config_loader
        self.engine = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
