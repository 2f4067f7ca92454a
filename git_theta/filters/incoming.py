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
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from git_theta import formats
from git_theta.checkpoint.chunking import SourceStream
from git_theta.checkpoint.clean import Cleaned, clean, store
from git_theta.checkpoint.context import StorageContext
from git_theta.checkpoint.parents import Parent
from git_theta.checkpoint.verify import is_file_of
from git_theta.core.buffers import new_buffer
from git_theta.core.files import FileSource
from git_theta.core.layout import Buffer, Layout, Source
from git_theta.core.os_errors import store_error
from git_theta.core.sharing import make_folder
from git_theta.errors import ChangedError
from git_theta.git.pktline import Content
from git_theta.manifest import Manifest

# Bytes that are read where they are wanted, without a packet's memory between; fewer are cheaper to
# cut out of a whole packet.
_DIRECT = 64 << 10


class Packets:
    """Packets of any size as a stream."""

    def __init__(self, packets: Iterator[Buffer]) -> None:
        self._packets = packets
        self._direct = packets.readinto if isinstance(packets, Content) else None
        self._rest = memoryview(b"")

    def take(self, length: int) -> Buffer:
        """Return the next ``length`` bytes; fewer, or none, only at the end."""
        if length <= len(self._rest):
            piece, self._rest = self._rest[:length], self._rest[length:]
            return piece
        buffer, position = new_buffer(length), 0
        while position < length:
            if self._direct and not self._rest and length - position >= _DIRECT:
                position += self._direct(buffer[position:])
            if position < length and not self._rest and not self._next():
                break
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
        self._rest = memoryview(bytes(data) + bytes(self._rest))


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
    content: Packets,
    file: Path,
    name: str,
    storage: StorageContext,
    parents: Iterable[Parent],
    since: int | None = None,
    only_compares: bool = False,
) -> Cleaned:
    """Store ``content``, called ``name``, which is most likely what ``file`` holds.

    See ``checkpoint.clean``, and ``FileWatch`` for ``since``. No byte is read twice where it is
    what the file holds and nobody may have written to it. Raises ``ChangedError`` where somebody
    did, unless git ``only_compares`` the file and stores no manifest.
    """
    with _opened(file) as source:
        watch = source.watch(since) if source else None
        guess = _look_at(source, name) if source else _NOTHING
        storage.progress.start(f"storing {name}", guess.size)
        stream = _Watched(content, guess.reads)
        manifest = store(stream, guess.layout, storage, parents)
        if source and watch and not only_compares and watch.suspects():
            if watch.size() != manifest.size:
                raise _changed()
            _check_same(source, manifest, storage.settings.workers)
    if stream.agrees and stream.position == guess.size:
        return Cleaned(manifest, guess.warning)
    return _clean_again(manifest, name, storage, parents)


def check_empty(file: Path, since: int | None) -> None:
    """Raise ``ChangedError`` where ``file``, read as empty, is one that somebody is writing.

    Saving over a file empties it first.
    """
    with _opened(file) as source:
        watch = source.watch(since) if source else None
        if watch and (watch.is_open_for_writing() or (watch.size() and watch.suspects())):
            raise _changed()


@contextmanager
def _opened(file: Path) -> Iterator[FileSource | None]:
    if file.is_symlink() or not file.is_file():
        yield None
        return
    with FileSource(file) as source:
        yield source


def _check_same(source: FileSource, manifest: Manifest, workers: int) -> None:
    """Compare what was stored with the file as it is now.

    Each byte was the same at two times, one before the file was read to its end, one after it:
    the manifest is what the file was in between. Only then is it not a mixture.
    """
    try:
        same = is_file_of(manifest, SourceStream(source), workers)
    except ChangedError as error:
        raise _changed() from error
    if not same:
        raise _changed()


def _changed() -> ChangedError:
    return ChangedError(
        "the file changed while it was added: a program writes to it in place, over the old bytes "
        "or through a memory map",
        hint="wait until it is saved, then git add it again; programs that save under another name "
        "and rename the file avoid this",
    )


class _Guess(NamedTuple):
    """The layout of a file, its size in bytes, and what that follows from."""

    layout: Layout
    size: int
    reads: list[tuple[int, bytes]]
    warning: str | None


_NOTHING = _Guess(Layout(formats.OPAQUE), 0, [], None)


def _look_at(source: FileSource, name: str) -> _Guess:
    recorded = _Recorded(source)
    try:
        layout, warning = formats.scan(recorded, name)
    except ChangedError:
        return _NOTHING
    return _Guess(layout, source.size, recorded.reads, warning)


def _clean_again(
    manifest: Manifest, name: str, storage: StorageContext, parents: Iterable[Parent]
) -> Cleaned:
    """Cut anew what was cut in the wrong places."""
    # Seldom needed: they take 3 ms to import, and 70.
    from tempfile import NamedTemporaryFile

    from git_theta.checkpoint.smudge import smudge

    folder = storage.store.root / "tmp"
    try:
        make_folder(folder)
        with NamedTemporaryFile(dir=folder) as spool:
            for piece in smudge(manifest, storage, name):
                spool.write(piece)
            spool.flush()
            with FileSource(Path(spool.name)) as source:
                return clean(source, name, storage, parents)
    except OSError as error:
        raise store_error(error, folder) from error
