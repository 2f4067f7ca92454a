"""``git-theta`` and ``python -m git_theta``."""

import os

# Read once, when numpy is loaded: our threads work on a chunk each, and OpenBLAS's own on top of
# them made a decomposition of 3 ms take 320 ms on a busy machine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from git_theta.cli import main

if __name__ == "__main__":
    main()
