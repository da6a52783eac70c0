"""python -m normlab.doctor <run folder> [--ckpt CKPT] [--trust PACKAGE]

python -m normlab.doctor <module:network> --train <module:loader> --test <module:loader> [--weights FILE]
"""

import argparse
import sys
from pathlib import Path

from normlab.errors import ConfigError, WriteError
from normlab.logs.streams import keep_going


def main() -> None:
    """Looks at a run, as `python train.py action=doctor` does, or at a network. Exit codes: 0 looked at, 2 refused."""
    keep_going()
    parser = argparse.ArgumentParser(
        "python -m normlab.doctor", description="Says what is wrong with the normalization of a run, or of any network."
    )
    parser.add_argument(
        "of",
        metavar="run|module:network",
        help="a run's folder, such as outputs/x; or a network, or what makes it, as module:name",
    )
    parser.add_argument("--ckpt", default="best", help="best, last, another of the run's checkpoints, or a path")
    parser.add_argument(
        "--trust", action="append", default=[], metavar="PACKAGE", help="whose parts the run folder may name; as trust="
    )
    own = parser.add_argument_group("for a network that is no run of normlab")
    own.add_argument("--train", metavar="MODULE:LOADER", help="the loader of the training part: batches (x, y, …)")
    own.add_argument("--test", metavar="MODULE:LOADER", help="the loader of samples that training did not see")
    own.add_argument("--weights", type=Path, metavar="FILE", help="a state dict to load into the network")
    arguments = parser.parse_args()
    try:
        if ":" in arguments.of and not Path(arguments.of).exists():
            from normlab.doctor.own import diagnose_named  # with torch

            print(diagnose_named(arguments.of, arguments.train, arguments.test, arguments.weights))
            return
        examine(Path(arguments.of), arguments.ckpt, arguments.trust)
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
