"""Objects that a repository needs beside its refs: indexes and operations under way.

Of every work tree: commits that only a file of a rebase, merge, bisect or autostash names, indexes
that git has for a while (``git stash``, ``git commit PATH``), and the locks of indexes that are
being written.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from git_theta.errors import GitError

# HEAD, ORIG_HEAD, MERGE_HEAD, CHERRY_PICK_HEAD, MERGE_AUTOSTASH, BISECT_EXPECTED_REV ...: git adds
# to them with every release, so they are known by their form.
_PSEUDO_REF = re.compile(r"[A-Z][A-Z0-9_]*")
_OPERATIONS = ("rebase-merge", "rebase-apply", "sequencer")
_ID = re.compile(rb"\b[0-9a-f]{40}(?:[0-9a-f]{24})?\b")

# Lists of commits are shorter; the patches of `git am` beside them may not be.
_LONGEST = 16 << 20


def held(common_dir: Path) -> list[str]:
    """Return the ids that files of git name; some may be of objects that are gone.

    That more than commits are among them does no harm: what is held on to stays. ``GitError`` for
    a file that cannot be read, since it may hold something.
    """
    found: set[bytes] = set()
    for file in _files(common_dir):
        try:
            if file.stat().st_size <= _LONGEST:
                found.update(_ID.findall(file.read_bytes()))
        except (FileNotFoundError, NotADirectoryError):
            continue  # the operation has ended
        except OSError as error:
            raise _unreadable(error, file) from error
    return sorted(name.decode() for name in found if name.strip(b"0"))


def _files(common_dir: Path) -> Iterator[Path]:
    for folder in git_dirs(common_dir):
        yield from (file for file in _list(folder) if _PSEUDO_REF.fullmatch(file.name))
        for operation in _OPERATIONS:
            yield from filter(Path.is_file, _list(folder / operation))
        if folder != common_dir:
            # `--all` knows the refs that all work trees share, and those of the current one.
            yield from filter(Path.is_file, (folder / "refs").rglob("*"))


def git_dirs(common_dir: Path) -> list[Path]:
    """Return the git directory of the main work tree, then those of the linked ones."""
    return [common_dir, *_list(common_dir / "worktrees")]


def indexes(common_dir: Path) -> list[Path]:
    """Return the indexes that git has made for a while, finished or not.

    ``index.stash.<pid>`` of ``git stash``, ``next-index-<pid>.lock`` of ``git commit PATH``,
    ``index.lock`` of whatever writes the index.
    """
    files = (file for folder in git_dirs(common_dir) for file in _list(folder))
    return [file for file in files if _is_spare_index(file.name)]


def _is_spare_index(name: str) -> bool:
    return name.startswith(("index.", "next-index-"))


def is_whole(index: Path) -> bool:
    """Return whether an index was written to its end: the last bytes are the hash of the others.

    Git itself looks at that in `git fsck` only.
    """
    content = index.read_bytes()
    return any(
        content[-size:] in (hashlib.new(name, content[:-size]).digest(), bytes(size))
        for name, size in (("sha1", 20), ("sha256", 32))
    )


def _list(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _unreadable(error, folder) from error


def _unreadable(error: OSError, path: Path) -> GitError:
    return GitError(f"cannot be read: {error.strerror}", path=str(path))
