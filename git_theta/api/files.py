"""A version of a checkpoint as bytes: of a commit, decoded from objects, or of the work tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Protocol

import numpy as np

from git_theta import formats, transfer
from git_theta.checkpoint import chunk_decoder
from git_theta.checkpoint.chunk_decoder import all_bases
from git_theta.checkpoint.limits import Allowance
from git_theta.checkpoint.reader import SkeletonSource
from git_theta.core.arrays import Bytes
from git_theta.core.files import FileSource
from git_theta.core.layout import Layout, Source, TensorSpan
from git_theta.core.parallel import batches, in_order
from git_theta.errors import (
    CorruptObjectError,
    FormatError,
    ManifestError,
    StoreError,
)
from git_theta.formats import safetensors
from git_theta.manifest import Chunk, Manifest
from git_theta.store import ReadAhead
from git_theta.workspace import Workspace

# Bytes of chunks that one thread decodes at a time: a task costs about 50 us.
_BATCH = 4 << 20


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes ``start`` to ``stop`` of a tensor's storage."""

    span: TensorSpan
    start: int
    stop: int


class CheckpointFile(Protocol):
    """Where the tensors of a file lie, and their bytes."""

    @property
    def layout(self) -> Layout:
        """The spans and aliases, in the order of the file."""
        ...

    def read(self, ranges: Sequence[Range]) -> list[Bytes]:
        """Return the bytes of each range, in memory of its own that may be written to."""
        ...

    def source(self) -> Source:
        """Return the file, in which the bytes of tensors may be zeros."""
        ...


class StoredFile:
    """A file that a manifest stands for: what is read is decoded, after it is fetched if need be.

    Safe for use by several threads.
    """

    def __init__(self, described: Manifest, workspace: Workspace) -> None:
        self.layout = layout_of(described)
        self._manifest = described
        self._workspace = workspace
        self._frames = ReadAhead(workspace.store)
        # What several threads ask for at once is downloaded once.
        self._fetching = Lock()
        self._chunks = {entry.name: entry.chunks for entry in described.tensors}

    def read(self, ranges: Sequence[Range]) -> list[Bytes]:
        """Fetch and decode the chunks that the ranges touch, and no other."""
        wanted = [(self._chunks[each.span.name], each.start, each.stop) for each in ranges]
        self._make_ready(chunk for chunks, *ends in wanted for chunk, *_ in _cut(chunks, *ends))
        wholes = [np.empty(stop - start, np.uint8) for _, start, stop in wanted]
        pieces = [
            _Piece(chunk, first, last, whole[at : at + last - first])
            for whole, (chunks, start, stop) in zip(wholes, wanted, strict=True)
            for chunk, first, last, at in _cut(chunks, start, stop)
        ]
        self._decode(pieces)
        return wholes

    def source(self) -> Source:
        """Return the file with zeros in place of the tensors."""
        chunks = self._manifest.skeleton
        self._make_ready(chunks)
        decoded = chunk_decoder.decode_each(self._frames, chunks)
        return SkeletonSource(self._manifest, b"".join(each.data.tobytes() for each in decoded))

    def _make_ready(self, chunks: Iterable[Chunk]) -> None:
        """Bring the objects of ``chunks`` here; ``LimitError`` where they cost far too much."""
        wanted = list(chunks)
        needed = {ref.oid: ref.size for chunk in wanted for ref in chunk.chain}
        with self._fetching:
            transfer.fetch(self._workspace, needed)
        # Each read is a command of its own: a tensor may be read any number of times.
        replace(self._workspace.storage, allowance=Allowance()).charge(wanted)

    def _decode(self, pieces: Sequence[_Piece]) -> None:
        groups = [*batches(pieces, lambda piece: piece.chunk.length, _BATCH)]
        if len(groups) == 1:
            self._fill(groups[0])
            return
        for _ in in_order(
            self._fill, groups, self._workspace.storage.settings.workers, small_results=True
        ):
            pass

    def _fill(self, pieces: Sequence[_Piece]) -> None:
        for piece in pieces:
            try:
                decoded = chunk_decoder.decode(self._frames, piece.chunk, all_bases)
            except CorruptObjectError:
                # Whatever was verified once: adding the content again must mend it.
                self._workspace.storage.index.forget(ref.oid for ref in piece.chunk.chain)
                raise
            piece.place[:] = decoded.data[piece.start : piece.stop]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes ``start`` to ``stop`` of a chunk, and where they go."""

    chunk: Chunk
    start: int
    stop: int
    place: Bytes


def _cut(chunks: Iterable[Chunk], start: int, stop: int) -> Iterator[tuple[Chunk, int, int, int]]:
    """Yield the chunks within a range: what is wanted of each, and where it lies in the range."""
    position = 0
    for chunk in chunks:
        first, last = max(start - position, 0), min(stop - position, chunk.length)
        if first < last:
            yield chunk, first, last, position + first - start
        position += chunk.length


def layout_of(described: Manifest) -> Layout:
    """Return where the tensors lie; ``ManifestError`` where they cannot lie so."""
    spans, position = [], 0
    for entry in described.tensors:
        start, length = position + entry.gap, entry.length
        rest = (entry.offset, entry.strides)
        spans.append(TensorSpan(entry.name, entry.dtype, entry.shape, start, length, *rest))
        position = start + length
    layout = Layout(described.format, tuple(spans), described.aliases)
    try:
        formats.check_layout(layout, described.size)
    except FormatError as error:
        raise ManifestError(f"malformed manifest: {error.message}") from error
    return layout


class WorkTreeFile:
    """A file of the work tree as it is, committed or not."""

    def __init__(self, source: FileSource, name: str) -> None:
        self.layout, warning = formats.scan(source, name)
        self._source = source
        if warning and not self.layout.spans:
            raise FormatError(warning.partition(". It is stored whole")[0])

    def read(self, ranges: Sequence[Range]) -> list[Bytes]:
        """Read the bytes, without verifying anything: this is what the user has there."""
        try:
            return [
                np.asarray(self._source.view(it.span.start + it.start, it.stop - it.start))
                for it in ranges
            ]
        except OSError as error:
            raise StoreError(f"cannot be read: {error.strerror}") from error

    def source(self) -> Source:
        """Return the file itself."""
        return self._source


def metadata_of(file: CheckpointFile) -> dict[str, str] | None:
    """Return the ``__metadata__`` of a safetensors file, ``None`` where there is none."""
    if file.layout.format != "safetensors":
        return None
    found = safetensors.metadata_of(file.source())
    if found is None:
        return None
    if not isinstance(found, Mapping) or not all(isinstance(it, str) for it in found.values()):
        raise FormatError("its __metadata__ does not map strings to strings")
    return dict(found)
