"""The bytes that git sends to a clean filter, stored as they come.

Where tensors lie must be known before their bytes come, so the work-tree file is looked at first:
what git sends is nearly always that file. Whether the layout found there is right is decided by
the bytes that it was found by (headers, directories, pickles) and the size: these are compared
with what came. ``git hash-object --path``, ``git stash`` and others may send something else; it is
stored exactly all the same, only cut in the wrong places, and from there cut anew.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from git_theta import formats
from git_theta.checkpoint import Cleaned, StorageContext, clean, smudge, store
from git_theta.checkpoint.parents import Parent
from git_theta.core.buffers import new_array
from git_theta.core.layout import Buffer, Layout, Source
from git_theta.core.system import FileSource, store_error
from git_theta.errors import ChangedError
from git_theta.manifest import Manifest


class Packets:
    """Packets of any size as a stream."""

    def __init__(self, packets: Iterator[Buffer]) -> None:
        self._packets = packets
        self._rest = memoryview(b"")

    def take(self, length: int) -> Buffer:
        """The next ``length`` bytes; fewer, or none, only at the end."""
        if length <= len(self._rest):
            piece, self._rest = self._rest[:length], self._rest[length:]
            return piece
        buffer, position = new_array(length).data, 0
        while position < length and (self._rest or self._next()):
            piece = self._rest[: length - position]
            buffer[position : position + len(piece)] = piece
            position += len(piece)
            self._rest = self._rest[len(piece) :]
        return buffer[:position]

    def _next(self) -> bool:
        self._rest = memoryview(next((packet for packet in self._packets if len(packet)), b""))
        return bool(self._rest)

    def push_back(self, data: Buffer) -> None:
        """Let ``data`` come again, before everything else."""
        self._packets = _after(bytes(self._rest), self._packets)
        self._rest = memoryview(data)


def _after(first: bytes, rest: Iterable[Buffer]) -> Iterator[Buffer]:
    yield first
    yield from rest


class _Recorded:
    """A source that remembers what was read of it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.size = source.size
        self.reads: list[tuple[int, bytes]] = []

    def read(self, offset: int, length: int) -> bytes:
        data = self._source.read(offset, length)
        self.reads.append((offset, data))
        return data


class _Watched:
    """A stream that is compared, as it passes, with bytes that are expected in places."""

    def __init__(self, stream: Packets, expected: list[tuple[int, bytes]]) -> None:
        self._stream = stream
        self._expected = list(expected)
        heapq.heapify(self._expected)
        self.position = 0
        self.agrees = True

    def take(self, length: int) -> Buffer:
        data = self._stream.take(length)
        while self._expected and self._expected[0][0] < self.position + len(data):
            self._compare(data, *heapq.heappop(self._expected))
        self.position += len(data)
        return data

    def _compare(self, data: Buffer, offset: int, expected: bytes) -> None:
        start = offset - self.position
        here = bytes(data[start : start + len(expected)])
        self.agrees = self.agrees and expected.startswith(here)
        if len(here) < len(expected):
            heapq.heappush(self._expected, (offset + len(here), expected[len(here) :]))


def clean_incoming(
    content: Packets, file: Path, name: str, storage: StorageContext, parents: Iterable[Parent]
) -> Cleaned:
    """Store ``content``, called ``name``, which is most likely what ``file`` holds.

    See ``checkpoint.clean``. No byte is read twice where it is what the file holds.
    """
    guess = _look_at(file, name)
    storage.progress.start(f"storing {name}", guess.size)
    stream = _Watched(content, guess.reads)
    described = store(stream, guess.layout, storage, parents)
    if stream.agrees and stream.position == guess.size:
        return Cleaned(described, guess.warning)
    return _clean_again(described, name, storage, parents)


@dataclass(frozen=True, slots=True)
class _Guess:
    """The layout of a file, its size in bytes, and what that follows from."""

    layout: Layout
    size: int
    reads: list[tuple[int, bytes]]
    warning: str | None


_NOTHING = _Guess(Layout(formats.OPAQUE), 0, [], None)


def _look_at(file: Path, name: str) -> _Guess:
    if file.is_symlink() or not file.is_file():
        return _NOTHING
    with FileSource(file) as source:
        recorded = _Recorded(source)
        try:
            layout, warning = formats.scan(recorded, name)
        except ChangedError:
            return _NOTHING
        return _Guess(layout, source.size, recorded.reads, warning)


def _clean_again(
    described: Manifest, name: str, storage: StorageContext, parents: Iterable[Parent]
) -> Cleaned:
    """Cut anew what was cut in the wrong places."""
    folder = storage.store.root / "tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder) as spool:
            for piece in smudge(described, storage, name):
                spool.write(piece)
            spool.flush()
            with FileSource(Path(spool.name)) as source:
                return clean(source, name, storage, parents)
    except OSError as error:
        raise store_error(error, folder) from error
