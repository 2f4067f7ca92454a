"""The work of our hook after git has written its index: checkpoints that were deferred.

Git waits for it at every checkout of a large one, so it starts without click.
"""

from __future__ import annotations

import importlib
import threading
from typing import NoReturn

from git_theta.cli.exit_handling import run_and_leave
from git_theta.cli.progress import Meter
from git_theta.workspace import open_workspace

_WORK = "git_theta.filters.deferred"


def run_hook() -> NoReturn:
    """Write the deferred checkpoints and exit."""
    run_and_leave(write_deferred)


def write_deferred() -> None:
    """Write the large checkpoints of a checkout."""
    # With numpy it takes 60 ms; meanwhile git is asked where we are and what is configured.
    threading.Thread(target=importlib.import_module, args=[_WORK]).start()
    with open_workspace(progress=Meter(), read_settings_once=True) as workspace:
        from git_theta.filters.deferred import checkout_pending

        checkout_pending(workspace)
