"""python -m normlab.report <folder>… [--out FOLDER] [--runs] [--export FORMATS] [--trust PACKAGE]"""

import argparse
import sys
from pathlib import Path

from normlab.errors import ConfigError, WriteError
from normlab.folder.place import shown
from normlab.logs.streams import keep_going
from normlab.report import write_report
from normlab.report.export import check_formats, export
from normlab.report.runs import find_runs, is_run
from normlab.report.single import write_run_page


def main() -> None:
    """Exit codes: 0 written, 2 refused."""
    keep_going()
    parser = argparse.ArgumentParser(
        "python -m normlab.report", description="Writes a page about one run, or compares all runs in some folders."
    )
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="folder",
        help="of one run; or of a sweep, or of runs, looked through with all below",
    )
    parser.add_argument("--out", help="the folder to write into; without it the run's or the sweep's own")
    parser.add_argument(
        "--runs", action="store_true", help="writes a page about each run too, which the report links to"
    )
    parser.add_argument(
        "--export",
        metavar="FORMATS",
        help="saves its charts (svg, png, pdf) and tables (latex, markdown) into export/ beside it: --export svg,latex",
    )
    parser.add_argument(
        "--trust", action="append", default=[], metavar="PACKAGE", help="whose parts a run folder may name; as trust="
    )
    arguments = parser.parse_args()
    try:
        _write(arguments)
    except (ConfigError, WriteError, OSError) as error:
        print(f"refused: {error}", file=sys.stderr)
        sys.exit(2)


def _write(arguments: argparse.Namespace) -> None:
    formats = [] if arguments.export is None else check_formats(arguments.export)
    folders = [Path(folder) for folder in arguments.folders]
    if len(folders) == 1 and is_run(folders[0]):
        made = write_run_page(folders[0], arguments.out, arguments.trust)
        file = made.file
    else:
        if arguments.runs:
            for run in find_runs(folders):
                print(write_run_page(run.folder, trusted=arguments.trust).file)
        made = write_report(folders, arguments.out)
        file = made.folder / "report.html"
    print(made)
    if formats:
        written = export(file, formats, file.parent / "export")
        print(f"{shown(file.parent.absolute() / 'export')}: {len(written)} files")


if __name__ == "__main__":
    main()
