"""``git theta COMMAND --help`` opens the command's manual page on a terminal, as git's own does.

``-h`` prints the help text, and so does ``--help`` where there is no terminal, no man or no page.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

_FOLDER = Path("share") / "man" / "man1"


def page_for(words: Sequence[str], commands: Sequence[str]) -> Path | None:
    """Return the page that these arguments ask for, where it is installed."""
    *before, last = words or [""]
    if last != "--help" or len(before) > 1 or not {*before} <= {*commands}:
        return None
    file = Path(sys.prefix) / _FOLDER / f"{'-'.join(['git-theta', *before])}.1"
    return file if file.is_file() else None


def open_page(words: Sequence[str], commands: Sequence[str]) -> None:
    """Become man, if a page is asked for and can be shown; return otherwise."""
    page = page_for(words, commands)
    if page and sys.stdout.isatty() and (man := shutil.which("man")):
        os.execv(man, ["man", str(page)])  # noqa: S606
