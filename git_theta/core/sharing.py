"""Git's file modes for repositories that several users share (``core.sharedRepository``).

One setting for the process, as the umask is: whatever is created below a shared folder gets the
modes that git gives its own files there.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_GROUP, _EVERYBODY = 0o660, 0o664
_WORDS = {
    "": _GROUP, "group": _GROUP, "true": _GROUP, "yes": _GROUP, "on": _GROUP, "1": _GROUP,
    "all": _EVERYBODY, "world": _EVERYBODY, "everybody": _EVERYBODY, "2": _EVERYBODY,
}  # fmt: skip


class _Modes(NamedTuple):
    """Permissions that files get; with ``exact`` no others, whatever the umask is."""

    bits: int
    exact: bool


_shared: dict[Path, _Modes] = {}


def share(folder: Path, setting: str | None) -> None:
    """Give what is created below ``folder`` from now on the modes of ``core.sharedRepository``."""
    modes = _parse(setting)
    if modes:
        _shared[folder] = modes
    else:
        _shared.pop(folder, None)


def _parse(setting: str | None) -> _Modes | None:
    """Return the modes that git takes a setting for; ``None``: the umask alone decides."""
    word = "umask" if setting is None else setting.lower()
    if word in _WORDS:
        return _Modes(_WORDS[word], exact=False)
    # Git itself refuses an octal number without read and write for the owner.
    with suppress(ValueError):
        bits = int(word, 8) & 0o666
        return _Modes(bits, exact=True) if bits & 0o600 == 0o600 else None
    return None


def adjust(path: Path) -> None:
    """Give a file or folder that was just created the modes of a shared one, if it is one."""
    modes = next((m for folder, m in _shared.items() if path.is_relative_to(folder)), None)
    if modes is None:
        return
    with suppress(OSError):  # somebody else's, who has done it
        before = path.stat().st_mode
        after = _adjusted(before, modes)
        if after != before:
            path.chmod(stat.S_IMODE(after))


def _adjusted(mode: int, modes: _Modes) -> int:
    bits = modes.bits if mode & stat.S_IWUSR else modes.bits & ~0o222
    if mode & stat.S_IXUSR:
        bits |= (bits & 0o444) >> 2
    mode = (mode & ~0o777) | bits if modes.exact else mode | bits
    # New files in a shared folder belong to its group.
    return mode | stat.S_ISGID if stat.S_ISDIR(mode) else mode


def make_folder(folder: Path) -> None:
    """Create a folder, and those above it that are not there."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with suppress(FileExistsError):  # another process was quicker
        folder.mkdir()
        adjust(folder)
        return
    if not folder.is_dir():
        raise NotADirectoryError(20, os.strerror(20), str(folder))
