"""The command line: look at everything that was typed, then let Hydra start the job or jobs."""

import os
import sys
import traceback
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from normlab import logs, streams
from normlab.config import compose, sweep
from normlab.distributed import starter
from normlab.errors import ConfigError, JobError, PeerError, SweepError
from normlab.folder import place, reuse
from normlab.report.after import report_sweep
from normlab.runner.interrupts import interruptible
from normlab.sweeps import grid, plugins


def main() -> None:
    """Runs the command line in sys.argv. Exit codes: 0 done, 1 failed, 2 refused, 130 interrupted."""
    with interruptible():
        _main()


def _main() -> None:
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises instead of printing and exiting with 1
    streams.keep_going()
    try:
        sys.argv[1:] = compose.as_typed(sys.argv[1:])
        arguments = get_args_parser().parse_args()
        if not _only_shows(arguments):
            _check(arguments)
        plugins.register()
        jobs = Jobs(arguments.overrides, arguments.multirun)
        jobs.start()
        _leave(0)
    except (ConfigError, HydraException) as error:
        _leave(2, f"refused: {error}")
    except KeyboardInterrupt as error:
        _leave(130, str(error) or "interrupted; the same command with the same name= goes on")


def _only_shows(arguments: Namespace) -> bool:
    return any((arguments.help, arguments.hydra_help, arguments.cfg, arguments.info, arguments.shell_completion))


def _check(arguments: Namespace) -> None:
    """Refuses before Hydra makes a folder; puts the options of an old run in front of what was typed."""
    if arguments.multirun:
        starter.check_sweep()
    if arguments.config_path or arguments.config_name:
        if arguments.config_name in ("config", "config.yaml"):  # a run's
            compose.check_replay(Path(__file__).parent / (arguments.config_path or ""), arguments.overrides)
        return
    if arguments.multirun:
        grid.GridSweeper.jobs = sweep.check_sweep(arguments.overrides)
        return
    config, overrides = compose.check(arguments.overrides)
    starter.check(config)
    if config.action == "fit" and config.name is not None:
        path = place.resolve(config.name)
        if (result := reuse.finished(path, config)) is not None:
            reuse.tell_finished(path, result)
            _leave(0)
    sys.argv[1:1] = overrides[: len(overrides) - len(arguments.overrides)]


class Jobs:
    """The job or jobs that Hydra starts; in a sweep the others go on when one fails."""

    def __init__(self, typed: list[str], multirun: bool):
        self.typed, self.multirun = typed, multirun
        self.errors: list[Exception] = []

    def start(self) -> None:
        @hydra.main(config_path="pkg://normlab.conf", config_name="train", version_base="1.3")
        def job(config: DictConfig) -> float | None:
            try:
                return self._run(config)
            except Exception as error:
                self.errors.append(error)
                if self.multirun:
                    if not _is_watched():
                        _tell(error)
                    raise JobError(f"{type(error).__name__}: {error}") from None  # a sweeper must know
                return None

        try:
            with logs.on_console() if self.multirun else nullcontext():
                job()
        except SweepError as error:
            _leave(1, str(error))
        except JobError as error:
            if not self.errors:  # a launcher ran it in another process
                _leave(1, f"a job of the sweep failed: {error}")
        except Exception:
            if not self.errors:
                raise
        if self.errors and self.multirun:
            _leave(1, f"{len(self.errors)} of the jobs failed")
        if self.errors:
            _leave(_tell(self.errors[0]))

    def _run(self, config: DictConfig) -> float | None:
        from normlab.runner.run import run  # imports torch, which a refused command does not need

        settings = HydraConfig.get()
        if config.action != "fit":
            return run(compose.compose(self.typed), settings.runtime.output_dir).score
        config.overrides = [line for line in settings.overrides.task if not line.startswith("sweep=")]
        compose.keep_typed(config)
        with logs.quietly() if _is_watched() else nullcontext():
            return run(config, settings.runtime.output_dir).score


def _is_watched() -> bool:
    """Whether this is a job of one of our sweepers, which tell of their jobs, in whatever process those run."""
    settings = HydraConfig.get()
    return settings.mode == RunMode.MULTIRUN and settings.sweeper._target_.startswith(plugins.PREFIX)


def _tell(error: Exception) -> int:
    """Prints an error, a refusal without its traceback, and returns the exit code for it.

    Of several processes the first prints refusals, and each what failed in itself.
    """
    sys.stdout.flush()
    if isinstance(error, ConfigError):
        _say(f"refused: {error}")
        return 2
    if starter.is_first() or not isinstance(error, PeerError):
        traceback.print_exception(error)
    return 1


def _leave(code: int, message: str = "") -> None:
    sys.stdout.flush()
    if message:
        _say(message)
    sys.exit(report_sweep(code))


def _say(message: str) -> None:
    if starter.is_first():
        print(message, file=sys.stderr)
