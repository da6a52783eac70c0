"""normlab: a PyTorch Lightning + Hydra training template that gets batch normalization right.

import normlab
result = normlab.run(normlab.compose(["model=net", "data=wine"]))

Names resolve on first use, so that `import normlab` and a refused command cost no import of torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from normlab.config.compose import compose
    from normlab.data.common.base import DataModule
    from normlab.doctor.diagnose import diagnose
    from normlab.errors import ConfigError
    from normlab.norms.common.base import Norm
    from normlab.norms.common.declaration import Declaration, declaration
    from normlab.norms.common.estimate import estimate_statistics
    from normlab.norms.common.fold import fold
    from normlab.norms.common.replace import replace_norms
    from normlab.report.frame import runs
    from normlab.runner.loaded import load
    from normlab.runner.run import run
    from normlab.tasks.classify import Classify
    from normlab.tasks.freezing import freeze
    from normlab.tasks.multilabel import Multilabel
    from normlab.tasks.optimizers import parameter_groups
    from normlab.tasks.regress import Regress

__all__ = [
    "Classify",
    "ConfigError",
    "DataModule",
    "Declaration",
    "Multilabel",
    "Norm",
    "Regress",
    "compose",
    "declaration",
    "diagnose",
    "estimate_statistics",
    "fold",
    "freeze",
    "load",
    "parameter_groups",
    "replace_norms",
    "run",
    "runs",
]

HOMES = {
    "Classify": "tasks.classify",
    "ConfigError": "errors",
    "DataModule": "data.common.base",
    "Declaration": "norms.common.declaration",
    "Multilabel": "tasks.multilabel",
    "Norm": "norms.common.base",
    "Regress": "tasks.regress",
    "compose": "config.compose",
    "declaration": "norms.common.declaration",
    "diagnose": "doctor.diagnose",
    "estimate_statistics": "norms.common.estimate",
    "fold": "norms.common.fold",
    "freeze": "tasks.freezing",
    "load": "runner.loaded",
    "parameter_groups": "tasks.optimizers",
    "replace_norms": "norms.common.replace",
    "run": "runner.run",
    "runs": "report.frame",
}


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module normlab has no attribute {name}")
    return getattr(import_module(f"normlab.{HOMES[name]}"), name)
