"""python -m normlab.doctor <run folder> [--ckpt CKPT] [--trust PACKAGE]"""

import argparse
import sys
from pathlib import Path

from normlab.errors import ConfigError, WriteError
from normlab.logs.streams import keep_going


def main() -> None:
    """The same as `python train.py action=doctor`. Exit codes: 0 looked at, 2 refused."""
    keep_going()
    parser = argparse.ArgumentParser(
        "python -m normlab.doctor", description="Says what is wrong with the normalization of a run."
    )
    parser.add_argument("folder", help="of a run, such as outputs/x")
    parser.add_argument("--ckpt", default="best", help="best, last, another of the run's checkpoints, or a path")
    parser.add_argument(
        "--trust", action="append", default=[], metavar="PACKAGE", help="whose parts the run folder may name; as trust="
    )
    arguments = parser.parse_args()
    try:
        examine(Path(arguments.folder), arguments.ckpt, arguments.trust)
    except (ConfigError, WriteError) as error:
        print(f"refused: {error}", file=sys.stderr)
        sys.exit(2)


def examine(folder: Path, ckpt: str = "best", trust: tuple[str, ...] | list[str] = ()) -> None:
    """Looks at the run in a folder. Raises ConfigError."""
    from normlab.config.compose import of_run
    from normlab.config.inputs import named_checkpoint
    from normlab.folder.files import holds_run
    from normlab.folder.place import shown

    if not holds_run(folder):
        raise ConfigError(f"there is no run in {shown(folder)}: give the folder of one, such as outputs/x")
    config = of_run(folder, trust)
    if not named_checkpoint(ckpt, folder).is_file():
        raise ConfigError(f"{shown(folder)} has no checkpoint {ckpt}; let its fit end an epoch, or give another --ckpt")
    config.action, config.ckpt, config.overrides = "doctor", ckpt, []
    config.trainer.devices = config.trainer.num_nodes = 1

    from normlab.runner.run import run  # with torch

    run(config, folder=folder)


if __name__ == "__main__":
    main()
