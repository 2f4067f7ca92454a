"""Trees, commits and tags as Git stores them, taken apart and put together byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from git_theta.errors import GitError

_SIGNATURES = (
    b"-----BEGIN PGP SIGNATURE-----",
    b"-----BEGIN PGP MESSAGE-----",
    b"-----BEGIN SSH SIGNATURE-----",
    b"-----BEGIN SIGNED MESSAGE-----",
)
# Signatures of the object itself, and of a tag that was merged: what they sign is gone.
_SIGNED = (b"gpgsig", b"gpgsig-sha256", b"mergetag")


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """A name in a tree: its mode as it is written, such as ``100644``, and the object's id."""

    mode: bytes
    name: bytes
    id: str

    @property
    def is_tree(self) -> bool:
        """Return whether it is a folder."""
        return self.mode.lstrip(b"0") == b"40000"

    @property
    def is_file(self) -> bool:
        """Return whether it is a regular file."""
        return self.mode.lstrip(b"0").startswith(b"100")


def parse_tree(content: bytes, id_length: int) -> list[TreeEntry]:
    """Return the entries of a tree, whose ids have ``id_length`` hex digits."""
    entries, at, width = [], 0, id_length // 2
    while at < len(content):
        end = content.find(b"\0", at)
        mode, _, name = content[at:end].partition(b" ")
        stop = end + 1 + width
        if end < 0 or not mode or not name or stop > len(content):
            raise GitError("a tree is damaged", hint="git fsck")
        entries.append(TreeEntry(mode, name, content[end + 1 : stop].hex()))
        at = stop
    return entries


def tree_content(entries: Iterable[TreeEntry]) -> bytes:
    """Return the tree that has ``entries``, which are in order."""
    rows = (entry.mode + b" " + entry.name + b"\0" + bytes.fromhex(entry.id) for entry in entries)
    return b"".join(rows)


def tree_order(entry: TreeEntry) -> bytes:
    """Return the key by which Git sorts the entries of a tree."""
    return entry.name + b"/" if entry.is_tree else entry.name


def _fields(head: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield each header's name and all of its lines."""
    lines: list[bytes] = []
    for line in head.split(b"\n"):
        if lines and not line.startswith(b" "):
            yield lines[0].partition(b" ")[0], b"\n".join(lines)
            lines = []
        lines.append(line)
    if lines:
        yield lines[0].partition(b" ")[0], b"\n".join(lines)


def links(commit: bytes) -> tuple[str, list[str]]:
    """Return the tree and the parents of a commit."""
    head = commit.partition(b"\n\n")[0]
    rows = [(name, line) for name, line in _fields(head) if name in (b"tree", b"parent")]
    trees = [line.partition(b" ")[2].decode("ascii", "replace") for n, line in rows if n == b"tree"]
    parents = [line.partition(b" ")[2].decode("ascii", "replace") for n, line in rows[1:]]
    if len(trees) != 1:
        raise GitError("a commit is damaged", hint="git fsck")
    return trees[0], parents


def relinked_commit(commit: bytes, tree: str, new_id: Callable[[str], str]) -> tuple[bytes, bool]:
    """Return ``commit`` with another tree and other parents; whether a signature was dropped."""
    head, blank, message = commit.partition(b"\n\n")
    kept, dropped = [], False
    for name, line in _fields(head):
        if name == b"tree":
            line = b"tree " + tree.encode()
        elif name == b"parent":
            line = b"parent " + new_id(line.partition(b" ")[2].decode("ascii")).encode()
        elif name in _SIGNED:
            dropped = True
            continue
        kept.append(line)
    return b"\n".join(kept) + blank + message, dropped


def tagged(tag: bytes) -> str:
    """Return the id of the object that an annotated tag names."""
    first = tag.partition(b"\n")[0]
    if not first.startswith(b"object "):
        raise GitError("a tag is damaged", hint="git fsck")
    return first.partition(b" ")[2].decode("ascii", "replace")


def relinked_tag(tag: bytes, target: str) -> tuple[bytes, bool]:
    """Return ``tag`` with another object; whether a signature was dropped."""
    head, blank, message = tag.partition(b"\n\n")
    rows = [(name, line) for name, line in _fields(head) if name not in _SIGNED]
    lines = [b"object " + target.encode() if name == b"object" else line for name, line in rows]
    starts = [at for mark in _SIGNATURES if (at := _line_of(message, mark)) >= 0]
    text = message[: min(starts)] if starts else message
    dropped = bool(starts) or len(rows) < len(list(_fields(head)))
    return b"\n".join(lines) + blank + text, dropped


def _line_of(message: bytes, mark: bytes) -> int:
    if message.startswith(mark):
        return 0
    at = message.rfind(b"\n" + mark)
    return at + 1 if at >= 0 else -1
