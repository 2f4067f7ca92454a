"""The path of the installed executable, for configuration and hooks."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

from git_theta.errors import MissingToolError


def executable() -> Path:
    """Return the absolute path of the ``git-theta`` console script of this Python.

    A path rather than ``git-theta``: git may run from a GUI or a shell in which the virtual
    environment is not active. The script rather than ``python -m``, which would put the work tree,
    a stranger's files, first on the import path.
    """
    name = "git-theta"
    candidates = [Path(sys.argv[0]), Path(sysconfig.get_path("scripts")) / name]
    if found := shutil.which(name):
        candidates.append(Path(found))
    for candidate in candidates:
        if candidate.name == name and candidate.is_file():
            return candidate.absolute()
    raise MissingToolError(
        "the git-theta script is not installed beside this Python",
        hint="pip install --force-reinstall theta-vcs",
    )
