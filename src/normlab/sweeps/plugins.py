"""Our sweepers and launchers, made known to Hydra."""

from hydra.core.plugins import Plugins

from normlab.sweeps.claims.sweeper import ClaimsSweeper
from normlab.sweeps.fair.sweeper import FairSweeper
from normlab.sweeps.grid import GridSweeper
from normlab.sweeps.launchers.joblib import JoblibLauncher
from normlab.sweeps.launchers.ray import RayLauncher
from normlab.sweeps.launchers.submitit import SubmititLauncher
from normlab.sweeps.search import OptunaSweeper

PREFIX = "hydra_plugins.normlab."  # Hydra takes no plugin whose name starts otherwise


def register() -> None:
    """Makes our plugins known to Hydra under the names in conf/hydra/.

    Hydra itself would look into a package hydra_plugins. It finds none in an editable installation, and two projects
    made from this one would overwrite each other's.
    """
    for plugin in (
        GridSweeper,
        FairSweeper,
        ClaimsSweeper,
        OptunaSweeper,
        JoblibLauncher,
        RayLauncher,
        SubmititLauncher,
    ):
        Plugins.instance().class_name_to_class[f"{PREFIX}{plugin.__name__}"] = plugin
