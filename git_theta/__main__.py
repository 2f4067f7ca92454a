"""``git-theta`` and ``python -m git_theta``."""

import gc
import os
import sys
from typing import NoReturn

# Read once, when numpy is loaded: our threads work on a chunk each, and OpenBLAS's own on top of
# them made a decomposition of 3 ms take 320 ms on a busy machine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Git before 2.41 sets it for the work on a submodule (`git checkout --recurse-submodules`), and
# whatever git we start then, to ask where we are, refuses to run.
os.environ.pop("GIT_INTERNAL_SUPER_PREFIX", None)


def main() -> NoReturn:
    """Run the command line."""
    # Git waits for its filter at every add and checkout, and for hooks at every push and at
    # checkouts of large ones: without click they start 10 ms sooner.
    if sys.argv[1:] == ["filter-process"]:
        _collect_seldom()
        from git_theta.cli.serving import run_filter

        run_filter()
    if sys.argv[1:4] == ["hook", "pre-push", "--"]:
        _collect_seldom()
        from git_theta.cli.pre_push import run_hook

        run_hook(sys.argv[4:])
    if sys.argv[1:4] == ["hook", "post-index-change", "--"]:
        _collect_seldom()
        from git_theta.cli.post_index_change import run_hook as write_deferred

        write_deferred()
    from git_theta.cli import app

    app.main()


def _collect_seldom() -> None:
    """Let Python look for cycles among objects every 100,000 of them, not every 700.

    Modules, which stay, made it look 33 times: 3 to 5 ms of a filter's start. Of a manifest of
    90,000 tensors, a million objects that live as long as it does, it took a third of the time of
    reading it.
    """
    gc.set_threshold(100_000)


if __name__ == "__main__":
    main()
