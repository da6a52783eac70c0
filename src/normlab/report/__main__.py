"""python -m normlab.report <folder>… [--out FOLDER]"""

import argparse
import sys

from normlab.errors import ConfigError
from normlab.report import write_report
from normlab.streams import keep_going


def main() -> None:
    """Exit codes: 0 written, 2 refused."""
    keep_going()
    parser = argparse.ArgumentParser("python -m normlab.report", description="Compares the runs in some folders.")
    parser.add_argument(
        "folders", nargs="+", metavar="folder", help="of a sweep, or of runs; looked through with all below"
    )
    parser.add_argument("--out", help="where to write; without it the sweep's folder")
    arguments = parser.parse_args()
    try:
        print(write_report(arguments.folders, arguments.out))
    except (ConfigError, OSError) as error:
        print(f"refused: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
