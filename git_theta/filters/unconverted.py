"""Files that Git holds whole, or as LFS pointers, since before their path was tracked.

Git asks for a clean file what is in the index. If that became a manifest by itself, every
checkout of an old commit would look modified, and nobody could switch away from it. So what is
unchanged stays what it is, until `git add --renormalize` asks for more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from git_theta import manifest
from git_theta.core.layout import Buffer
from git_theta.core.os_errors import store_error
from git_theta.core.sharing import make_folder
from git_theta.filters.incoming import Packets
from git_theta.git import Repository
from git_theta.git.blob_files import git_blob
from git_theta.git.lfs_files import LONGEST, is_pointer, target_of

if TYPE_CHECKING:
    from hashlib import _Hash

_PIECE = 1 << 20
_OPTION = "--renormalize"
_SHORTEST = "--ren"  # as git takes it


def renormalizes(processes: Iterable[Sequence[str]]) -> bool:
    """Return whether one of these command lines asks for all files to be stored anew."""
    return any(
        word.startswith(_SHORTEST) and _OPTION.startswith(word)
        for words in processes
        for word in words
    )


def kept(repo: Repository, path: str, content: Packets) -> tuple[Iterator[Buffer] | None, Packets]:
    """Return what the index has for ``path``, if that is no manifest and stands for ``content``.

    Otherwise ``None``; the second value is the content, to be read from its beginning.
    """
    staged = repo.peek_staged(path, LONGEST)
    if staged is None or not staged.size or manifest.is_manifest(staged.head):
        return None, content
    pointer = staged.head if is_pointer(staged.head) and staged.size <= LONGEST else b""
    target = target_of(pointer)
    name, size = target or (staged.id, staged.size)
    if _size((repo.work_tree or Path()) / path) != size:
        return None, content
    from hashlib import sha256  # loads OpenSSL, which a file that is ours does without

    digest = sha256() if target else git_blob(name, size)
    spool = _spooled(content, repo.theta_dir / "tmp", digest)
    if digest.hexdigest() != name:
        return None, Packets(_pieces(spool))
    return (iter([pointer]) if target else _pieces(spool)), content


def _size(file: Path) -> int | None:
    try:
        return file.lstat().st_size
    except OSError:
        return None


def _spooled(content: Packets, folder: Path, digest: _Hash) -> IO[bytes]:
    from tempfile import TemporaryFile

    try:
        make_folder(folder)
        spool = TemporaryFile(dir=folder)  # noqa: SIM115 - closed when all of it was read
        while len(piece := content.take(_PIECE)):
            digest.update(piece)
            spool.write(piece)
        spool.seek(0)
    except OSError as error:
        raise store_error(error, folder) from error
    return spool


def _pieces(spool: IO[bytes]) -> Iterator[bytes]:
    with spool:
        while piece := spool.read(_PIECE):
            yield piece
