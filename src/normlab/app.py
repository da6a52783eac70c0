"""The command line: what was typed is composed and checked once, and that configuration is what runs."""

import os
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import hydra
from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import run_job
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from normlab import logs
from normlab.config.compose import Composed, check, check_replay
from normlab.config.help import help_text
from normlab.config.overrides import as_typed
from normlab.config.source import JOB_NAME, OURS, ConfigSource
from normlab.config.sweep import Sweep, check_sweep
from normlab.distributed import world
from normlab.distributed.interrupts import interruptible
from normlab.errors import ConfigError, JobError, PeerError, SweepError, is_of_disk, unmasked
from normlab.folder import place, reuse
from normlab.logs.streams import keep_going
from normlab.report.after import report_sweep
from normlab.runner.exports import check_format
from normlab.sweeps import plugins
from normlab.sweeps.jobs import CheckedJobs


def main() -> None:
    """Runs the command line in sys.argv. Exit codes: 0 done, 1 failed, 2 refused, 130 interrupted."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises instead of printing and exiting with 1
    version.setbase("1.3")
    keep_going()
    _find_modules()
    ends: list[int] = []
    with interruptible():
        code = _guarded(lambda: ends.append(_run_command()))
    sys.exit(code or ends[0])


def _run_command() -> int:
    sys.argv[1:] = as_typed(sys.argv[1:])
    arguments = get_args_parser().parse_intermixed_args()  # --config-dir may stand between words
    plugins.register()
    if any((arguments.help, arguments.hydra_help, arguments.cfg, arguments.info, arguments.shell_completion)):
        _show(arguments)
        return 0
    source = _source(arguments)
    if not arguments.multirun:
        return _run_once(check(arguments.overrides, source))
    world.check_sweep()
    if arguments.config_path is not None:
        raise ConfigError("-m with --config-path: the run that is replayed is a single one; leave out -m")
    return _run_sweep(check_sweep(arguments.overrides, source))


def _find_modules() -> None:
    """Lets parts be imported from modules in the working folder, after all others, however the command was started."""
    if not {"", os.getcwd()} & {*sys.path}:
        sys.path.append(os.getcwd())


def _show(arguments: Namespace) -> None:
    """Shows our help, or lets Hydra show its own or a configuration, which starts no job. Raises ConfigError.

    The shell asks what completes a line by a variable, and what `--config-dir` in that line names is completed too.
    """
    if arguments.help:
        source = OURS if arguments.config_dir is None else OURS.also([arguments.config_dir], "--config-dir")
        print(help_text(source, arguments.overrides))
        return
    if arguments.multirun and (arguments.cfg or arguments.info):
        raise ConfigError("-m with --cfg or --info: these show one job; leave out -m, and give each key one value")
    if arguments.shell_completion:
        line = get_args_parser().parse_known_args(os.environ.get("COMP_LINE", "").split())[0]
        sys.argv += [] if line.config_dir is None else ["--config-dir", line.config_dir]
    hydra.main(config_path="pkg://normlab.conf", config_name=JOB_NAME, version_base="1.3")(lambda config: None)()


def _source(arguments: Namespace) -> ConfigSource:
    """What the command composes from: `conf/`, or the run that `--config-path` names; `--config-dir` adds to it.

    Raises ConfigError.
    """
    source = OURS if arguments.config_dir is None else OURS.also([arguments.config_dir], "--config-dir")
    if arguments.config_path is None and arguments.config_name is None:
        return source
    if arguments.config_path is None or arguments.config_name not in ("config", "config.yaml"):
        raise ConfigError(
            f"--config-path {arguments.config_path} --config-name {arguments.config_name}: these replay a run, as the "
            "first line of its config.yaml says; options of your own stand in conf/, or in a folder for --config-dir"
        )
    return check_replay(Path(arguments.config_path), arguments.overrides, source)


def _run_once(composed: Composed) -> int:
    """Runs what was composed, in the surroundings that Hydra gives a job: its folder, environment and callbacks."""
    config = composed.config
    world.check(config)
    check_format(config)
    if config.action == "fit" and config.name is not None:
        path = place.resolve(config.name)
        if (result := reuse.finished(path, config)) is not None:
            reuse.tell_finished(path, result)
            return 0
    codes: list[int] = []

    def task(config: DictConfig) -> None:
        codes.append(_guarded(lambda: _run(config)))

    whole = composed.for_hydra()
    whole.hydra.mode = RunMode.RUN
    context, name = HydraContext(config_loader=OURS.loader, callbacks=Callbacks(whole)), whole.hydra.job.config_name
    context.callbacks.on_run_start(config=whole, config_name=name)
    returned = run_job(task, whole, "hydra.run.dir", None, context)
    context.callbacks.on_run_end(config=whole, config_name=name, job_return=returned)
    return codes[0]


def _run_sweep(sweep: Sweep) -> int:
    """Lets the sweeper run its jobs, and reports them however it ends."""
    settings = sweep.settings
    name = settings.hydra.job.config_name
    jobs = CheckedJobs(sweep.jobs, sweep.source, sweep.fair, _rehearse, _measure)
    context = HydraContext(config_loader=jobs, callbacks=Callbacks(settings))

    def go() -> None:
        context.callbacks.on_multirun_start(config=settings, config_name=name)
        sweeper = Plugins.instance().instantiate_sweeper(config=settings, hydra_context=context, task_function=_job)
        with logs.on_console():
            sweeper.sweep(arguments=[*settings.hydra.overrides.task])
        context.callbacks.on_multirun_end(config=settings, config_name=name)

    return report_sweep(Path(settings.hydra.sweep.dir), _guarded(go))


def _job(config: DictConfig) -> float | None:
    """One job of a sweep, in whatever process its launcher has for it."""
    try:
        return _run(config)
    except Exception as error:
        if not _is_watched():
            _tell(error)
        raise JobError(f"{type(error).__name__}: {error}") from None  # a sweeper must know


def _is_watched() -> bool:
    """Whether this is a job of one of our sweepers, which tell of their jobs, in whatever process those run."""
    settings = HydraConfig.get()
    return settings.mode == RunMode.MULTIRUN and settings.sweeper._target_.startswith(plugins.PREFIX)


def _run(config: DictConfig) -> float | None:
    from normlab.runner.run import run, run_job  # imports torch, which a refused command does not need

    do = run_job if _is_watched() else run
    return do(config, HydraConfig.get().runtime.output_dir).score


def _rehearse(config: DictConfig, folder: Path) -> tuple[str, str]:
    from normlab.runner.rehearsal import rehearse  # imports torch, which a finished sweep does not need

    return rehearse(config, folder)


def _measure(folder: Path, wanted: Mapping[int, Sequence[str]]) -> None:
    from normlab.runner.measures import measure_sweep  # imports torch, as above

    measure_sweep(folder, wanted)


def _guarded(go: Callable[[], object]) -> int:
    """Does something, and returns the exit code for how it ends; what ended it is printed."""
    try:
        with unmasked():
            go()
    except (ConfigError, HydraException) as error:
        _say(f"refused: {error}")
        return 2
    except KeyboardInterrupt as error:
        _say(str(error) or "interrupted; the same command with the same name= goes on")
        return 130
    except SweepError as error:
        _say(str(error))
    except JobError as error:  # told by the job itself
        _say(f"a job of the sweep failed: {error}")
    except Exception as error:
        _tell(error)
    else:
        return 0
    return 1


def _tell(error: Exception) -> None:
    """Prints an error, without its traceback where it is a refusal or the disk's.

    Of several processes the first prints refusals, and each what failed in itself.
    """
    if isinstance(error, ConfigError):
        _say(f"refused: {error}")
    elif is_of_disk(error):
        _say(f"failed: {error}")
    elif world.is_first() or not isinstance(error, PeerError):
        sys.stdout.flush()
        traceback.print_exception(error)


def _say(message: str) -> None:
    if world.is_first():
        sys.stdout.flush()
        print(message, file=sys.stderr)
