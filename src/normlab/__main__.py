"""`python -m normlab`, which is `python train.py` from wherever normlab is installed."""

from normlab.app import main

if __name__ == "__main__":  # processes of a run that start anew import this file
    main()
