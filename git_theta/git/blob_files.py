"""Blobs of any size as files, outside of memory."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from git_theta.core.os_errors import store_error
from git_theta.core.sharing import make_folder
from git_theta.errors import GitError
from git_theta.git import command
from git_theta.git.repository import Repository

if TYPE_CHECKING:
    from hashlib import _Hash

_PIECE = 4 << 20


@contextmanager
def scratch_file(folder: Path) -> Iterator[Path]:
    """Yield the path of an empty file in ``folder``, which goes away; with the umask's mode."""
    file = folder / f".tmp-{os.getpid()}-{os.urandom(8).hex()}"
    try:
        make_folder(folder)
        file.open("xb").close()
        yield file
    except OSError as error:
        raise store_error(error, folder) from error
    finally:
        file.unlink(missing_ok=True)


@contextmanager
def spooled(repo: Repository, blob: str, folder: Path) -> Iterator[Path]:
    """Yield a file in ``folder`` with the content of a blob. Raises ``GitError``."""
    with scratch_file(folder) as file, file.open("wb") as output:
        args = ["git", "cat-file", "blob", blob]
        with command.start(
            args, cwd=repo.top, env=repo.environment(), source=subprocess.DEVNULL
        ) as reader:
            assert reader.stdout
            while piece := reader.stdout.read(_PIECE):
                output.write(piece)
        output.flush()
        if reader.returncode:
            raise GitError("git cat-file cannot read it", hint="git fsck")
        yield file


def git_blob(blob: str, size: int) -> _Hash:
    """Return the hash that Git names a blob of ``size`` bytes by, to be fed with its content."""
    from hashlib import sha1, sha256  # loads OpenSSL, which few files of ours need: 3 ms

    digest = sha1(usedforsecurity=False) if len(blob) == 40 else sha256()
    digest.update(b"blob %d\0" % size)
    return digest
