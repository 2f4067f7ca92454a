"""Cutting a file into chunks on the way in, and placing chunks in a file on the way out.

Both directions walk the file from its first byte to its last, so that one pass reads, hashes and
stores it, or decodes and writes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from git_theta.core.dtypes import DEFLATED, DType, dtype
from git_theta.core.layout import MAX_RAW, Buffer, Geometry, Layout, Source, TensorSpan
from git_theta.manifest import Chunk, Manifest

SKELETON = -1
_SKELETON_GEOMETRY = Geometry(dtype("U8"))
_SKELETON_READ = 1 << 20

# Small chunks travel through the thread pool together: a task costs about 50 us, a bias 5.
BATCH = 4 << 20


class Stream(Protocol):
    """Bytes that are read once, in order."""

    def take(self, length: int) -> Buffer:
        """Return the next ``length`` bytes; fewer, or none, only at the end."""
        ...


class SourceStream:
    """A source read from its first byte to its last."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._position = 0

    def take(self, length: int) -> Buffer:
        """Return the next ``length`` bytes; fewer, or none, only at the end."""
        data = self._source.read(self._position, min(length, self._source.size - self._position))
        self._position += len(data)
        return data


class RawChunk(NamedTuple):
    """Chunk ``number`` of span ``owner`` (or of the ``SKELETON``) and its raw bytes."""

    owner: int
    number: int
    geometry: Geometry
    data: Buffer


def cut(span_length: int, shape: Sequence[int], chunk_size: int) -> int:
    """Bytes of a full chunk of a tensor of ``span_length`` bytes.

    Whole rows where a row is small, so that a chunk is itself a matrix and appended rows leave
    the chunks before them as they are.
    """
    rows = shape[0] if len(shape) > 1 else 0
    if rows < 2 or span_length % rows:
        return chunk_size
    row = span_length // rows
    return chunk_size - chunk_size % row if 0 < row <= chunk_size // 16 else chunk_size


def raw_chunks(stream: Stream, layout: Layout, chunk_size: int) -> Iterator[RawChunk]:
    """Yield the stream's chunks, each right after its last byte was read.

    A stream that is longer or shorter than the layout says is covered all the same: what comes
    after belongs to the skeleton, what does not come to nothing.
    """
    skeleton = _SkeletonCutter(chunk_size)
    position = 0
    for owner, span in enumerate(layout.spans):
        yield from _gap(stream, span.start - position, skeleton)
        yield from _span_chunks(stream, owner, span, chunk_size)
        position = span.start + span.length
    yield from _gap(stream, None, skeleton)
    yield from skeleton.finish()


def _gap(stream: Stream, length: int | None, skeleton: _SkeletonCutter) -> Iterator[RawChunk]:
    """Yield the next ``length`` bytes, or all that is left."""
    while length is None or length > 0:
        data = stream.take(_SKELETON_READ if length is None else min(_SKELETON_READ, length))
        if not data:
            return
        yield from skeleton.add(data)
        length = None if length is None else length - len(data)


def _span_chunks(
    stream: Stream, owner: int, span: TensorSpan, chunk_size: int
) -> Iterator[RawChunk]:
    kind = dtype(span.dtype)
    step = cut(span.length, span.shape, max(2, _chunk_size(kind, chunk_size)))
    for number, offset in enumerate(range(0, span.length, step)):
        data = stream.take(min(step, span.length - offset))
        if not data:
            return
        yield RawChunk(owner, number, Geometry(kind, span.shape, offset * 8 // kind.bits), data)


def _chunk_size(kind: DType, chunk_size: int) -> int:
    if kind.name.startswith(DEFLATED):
        return MAX_RAW  # half of a stream cannot be read
    # As many elements as of a wider float, so that a chunk has a base in another precision.
    return chunk_size // 2 if kind.name in ("F16", "BF16") else chunk_size


def geometries(manifest: Manifest) -> Iterator[tuple[Chunk, Geometry]]:
    """Yield each chunk with the geometry that it was encoded in."""
    for chunk in manifest.skeleton:
        yield chunk, _SKELETON_GEOMETRY
    for entry in manifest.tensors:
        kind, offset = dtype(entry.dtype), 0
        for chunk in entry.chunks:
            yield chunk, Geometry(kind, entry.shape, offset * 8 // kind.bits)
            offset += chunk.length


class _SkeletonCutter:
    """Collects the skeleton's pieces and cuts them into chunks of ``chunk_size``."""

    def __init__(self, chunk_size: int) -> None:
        self._chunk_size = chunk_size
        self._pending = bytearray()
        self._number = 0

    def add(self, data: Buffer) -> Iterator[RawChunk]:
        """Take a piece; give every chunk that it completes."""
        self._pending += data
        while len(self._pending) >= self._chunk_size:
            yield self._take(self._chunk_size)

    def finish(self) -> Iterator[RawChunk]:
        """Give what is left."""
        if self._pending:
            yield self._take(len(self._pending))

    def _take(self, length: int) -> RawChunk:
        data = bytes(self._pending[:length])
        del self._pending[:length]
        self._number += 1
        return RawChunk(SKELETON, self._number - 1, _SKELETON_GEOMETRY, data)


class Placement(NamedTuple):
    """Bytes ``start`` to ``stop`` of ``chunk`` come next in the file."""

    chunk: Chunk
    start: int
    stop: int


def placements(manifest: Manifest) -> Iterator[Placement]:
    """Yield the file in order as slices of chunks."""
    skeleton = _SkeletonCursor(manifest.skeleton)
    for entry in manifest.tensors:
        yield from skeleton.take(entry.gap)
        for chunk in entry.chunks:
            yield Placement(chunk, 0, chunk.length)
    yield from skeleton.rest()


class _SkeletonCursor:
    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self._chunks = chunks
        self._index = 0
        self._offset = 0

    def take(self, length: int) -> Iterator[Placement]:
        # Of a stream that was shorter than its layout, there is no more.
        while length > 0 and self._index < len(self._chunks):
            chunk = self._chunks[self._index]
            step = min(length, chunk.length - self._offset)
            yield Placement(chunk, self._offset, self._offset + step)
            length -= step
            self._offset += step
            if self._offset == chunk.length:
                self._index, self._offset = self._index + 1, 0

    def rest(self) -> Iterator[Placement]:
        while self._index < len(self._chunks):
            yield from self.take(self._chunks[self._index].length - self._offset)
