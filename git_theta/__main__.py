"""``git-theta`` and ``python -m git_theta``."""

import os
import sys
from typing import NoReturn

# Read once, when numpy is loaded: our threads work on a chunk each, and OpenBLAS's own on top of
# them made a decomposition of 3 ms take 320 ms on a busy machine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main() -> NoReturn:
    """Run the command line."""
    # Git waits for its filter at every add and checkout, and for hooks at every push and at
    # checkouts of large ones: without click they start 10 ms sooner.
    if sys.argv[1:] == ["filter-process"]:
        from git_theta.cli.serving import run_filter

        run_filter()
    if sys.argv[1:4] == ["hook", "pre-push", "--"]:
        from git_theta.cli.pre_push import run_hook

        run_hook(sys.argv[4:])
    if sys.argv[1:4] == ["hook", "post-index-change", "--"]:
        from git_theta.cli.post_index_change import run_hook as write_deferred

        write_deferred()
    from git_theta.cli import app

    app.main()


if __name__ == "__main__":
    main()
