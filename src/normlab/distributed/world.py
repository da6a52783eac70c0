"""The world that is already there: the processes that torchrun or srun started, known without torch."""

import os
from dataclasses import dataclass

from omegaconf import DictConfig

from normlab.errors import ConfigError

INTERACTIVE = ("bash", "interactive")  # names of SLURM jobs in which a person types; Lightning uses the same


@dataclass(frozen=True)
class World:
    """This process among the others. starter: torchrun or srun. rank: counted from 0 over all nodes."""

    starter: str
    rank: int
    processes: int
    nodes: int

    @property
    def local(self) -> int:
        """How many processes a node has."""
        return self.processes // self.nodes


def current() -> World | None:
    """The world that environment variables describe; None where this process stands alone and may start others."""
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:  # asked before SLURM's variables, since SLURM may start torchrun on each node
        return World("torchrun", *(int(env[key]) for key in ("RANK", "WORLD_SIZE", "GROUP_WORLD_SIZE")))
    if "SLURM_STEP_ID" not in env or env.get("SLURM_JOB_NAME") in INTERACTIVE or int(env["SLURM_NTASKS"]) == 1:
        return None
    return World("srun", *(int(env[key]) for key in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_NNODES")))


def is_first() -> bool:
    """Whether this process prints and writes for all; a process that stands alone does."""
    here = current()
    return here is None or here.rank == 0


def run_name() -> str | None:
    """The name of a run that was given none: the id of SLURM's job, or None where this process stands alone.

    Raises ConfigError under torchrun, which gives its processes no name that would be the same after a restart.
    """
    here = current()
    if here is not None and here.starter == "torchrun":
        raise ConfigError("under torchrun set name=: its processes share the folder of that name, and resume from it")
    return here and os.environ["SLURM_JOB_ID"]


def check_sweep() -> None:
    """Raises ConfigError where a sweep is started in processes that belong to one run."""
    here = current()
    if here is not None:
        raise ConfigError(f"-m under {here.starter}: launchers do that job; start python train.py -m without it")


def check(config: DictConfig) -> None:
    """Raises ConfigError where a configuration asks for a world other than the one that is there."""
    here, devices = current(), config.trainer.devices
    nodes = config.trainer.num_nodes
    if here is None:
        if nodes != 1:
            raise ConfigError(
                f"trainer.num_nodes={nodes}: torchrun or srun starts the processes of several nodes, and neither did; "
                "for this machine alone set trainer.num_nodes=1 and trainer.devices="
            )
        return
    if here.processes > 1 and config.action in ("predict", "stats", "export", "doctor"):
        raise ConfigError(f"action={config.action} under {here.starter}: start python train.py without it")
    if here.processes % here.nodes:
        raise ConfigError(
            f"{here.starter} started {here.processes} processes on {here.nodes} nodes: each node must have as many"
        )
    if devices not in ("auto", here.local) or nodes not in ("auto", here.nodes):
        option = {"torchrun": "torchrun", "srun": "slurm"}[here.starter]
        raise ConfigError(
            f"trainer.devices={devices}, trainer.num_nodes={nodes}: {here.starter} started {here.local} on each of "
            f"{here.nodes}; trainer={option} takes what is there"
        )
