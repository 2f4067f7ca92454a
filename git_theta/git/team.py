"""``.theta.toml``, which a team shares by committing it, and which any clone may bring."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from git_theta.core.files import read_regular
from git_theta.errors import SettingsError

TEAM_FILE = ".theta.toml"
_LIMIT = 64 << 10
# A key of n parts costs the parser n^2 / 2 references: 120,000 of them were 57 GB.
_DOTS = 128


def read_team_file(work_tree: Path) -> dict[str, Any]:
    """Return what ``.theta.toml`` at the top of a work tree says; nothing where it is absent.

    Only a regular file of up to 64 KiB is read. Raises ``SettingsError`` for any other, and for
    one that is not TOML.
    """
    try:
        text = read_regular(work_tree / TEAM_FILE, _LIMIT).decode("utf-8")
        if any(line.count(".") > _DOTS for line in text.splitlines()):
            raise ValueError(f"a line has more than {_DOTS} dots")
        settings = _parse(text)
    except FileNotFoundError:
        return {}
    except RecursionError as error:
        raise SettingsError("cannot be read: it is nested too deeply", path=TEAM_FILE) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"cannot be read: {reason}", path=TEAM_FILE) from error
    return settings


def _parse(text: str) -> dict[str, Any]:
    # Imported here: most repositories have no such file, and every filter would pay 2 ms.
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    settings: dict[str, Any] = tomllib.loads(text)
    return settings
