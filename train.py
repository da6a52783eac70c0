"""Trains a network.  python train.py [group=option] [key=value] [-m]; python train.py --help lists both."""

import sys

try:
    from normlab.app import main
except ModuleNotFoundError as error:
    print(f"refused: {error.name} is not installed; in this folder: pip install -e .", file=sys.stderr)
    sys.exit(2)

if __name__ == "__main__":
    main()
