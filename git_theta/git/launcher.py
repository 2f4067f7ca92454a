"""The line of sh by which git starts us: it says what to do when we are gone.

An environment that is deleted or moved takes git-theta with it, while git's configuration and the
hooks stay: git would stop at every ``status``, ``add`` and ``stash`` and not say why.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

# The path first: git may run where no virtual environment is active. Then whatever PATH has. No
# ``exec``, for the status tells more: with 126 and 127 the script is there and its Python is not,
# with 1 Python is there and our package is not (none of our errors has it). A fork costs 1 ms.
_LINE = (
    "for theta in {program} git-theta; do "
    'command -v "$theta" >/dev/null || continue; {call}; status=$?; '
    "case $status in 1|126|127) ;; *) exit $status ;; esac; done; {gone}"
)
_PROGRAM = re.compile(r"for theta in (.*?) git-theta; do ", re.DOTALL)


def line(program: Path, call: str, gone: str) -> str:
    """Return a line that runs ``call``, in which ``$theta`` is git-theta, and exits as it did.

    Where no git-theta can be started it runs ``gone``.
    """
    return _LINE.format(program=shlex.quote(program.as_posix()), call=call, gone=gone)


def program_of(text: str) -> Path | None:
    """Return the path that a line tries first; ``None`` where ``text`` holds no such line."""
    found = _PROGRAM.search(text)
    try:
        words = shlex.split(found[1]) if found else []
    except ValueError:
        return None
    return Path(words[0]) if len(words) == 1 else None
