"""Smudge: rebuild a checkpoint from its manifest and objects, every chunk verified."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import BinaryIO

from git_theta.checkpoint import chunk_decoder
from git_theta.checkpoint.chunking import BATCH, Placement, placements
from git_theta.checkpoint.context import StorageContext
from git_theta.checkpoint.decode_ahead import DecodeAhead
from git_theta.checkpoint.limits import is_paid_in_any_order
from git_theta.core.hashes import Ref
from git_theta.core.parallel import batches, in_order
from git_theta.core.progress import NullProgress
from git_theta.core.streams import write_at
from git_theta.core.system import begin_writeback
from git_theta.errors import CorruptObjectError
from git_theta.manifest import Chunk, Manifest
from git_theta.store import Location, ReadAhead


def smudge(manifest: Manifest, storage: StorageContext, name: str = "") -> Iterator[memoryview]:
    """Yield the file that ``manifest`` describes, in order, piece by piece, every chunk verified.

    Raises ``LimitError`` before anything is decoded, ``MissingObjectError`` or
    ``CorruptObjectError``; pieces given before that are right, but the caller must discard them.
    """
    reader = _ChunkReader(storage, manifest, name)
    groups = batches(placements(manifest), _length, BATCH)
    workers = storage.settings.workers
    if reader.is_arriving:
        decoded = _as_objects_come(reader, list(groups), workers)
    else:
        decoded = in_order(reader.read, groups, workers)
    for pieces in decoded:
        for piece in pieces:
            reader.progress.advance(piece.nbytes)
            yield piece
    reader.finish()


def _as_objects_come(
    reader: _ChunkReader, groups: Sequence[list[Placement]], workers: int
) -> Iterator[list[memoryview]]:
    """Yield the bytes of groups of placements, in order; those whose objects are here wait."""
    with closing(DecodeAhead(reader.read, groups, reader.in_turn(groups), _bytes)) as ahead:
        yield from in_order(ahead.take, range(len(groups)), workers)


def smudge_to(manifest: Manifest, storage: StorageContext, file: BinaryIO, name: str = "") -> None:
    """Write the file that ``manifest`` describes to ``file``, which is empty, in any order.

    Each worker decodes and writes in its place; nothing waits for what comes before it. Raises
    what ``smudge`` does, and ``OSError``; the caller must discard the file then.
    """
    reader = _ChunkReader(storage, manifest, name)
    os.ftruncate(file.fileno(), manifest.size)

    def write(group: list[tuple[int, Placement]]) -> int:
        pieces = reader.read([place for _, place in group])
        length = sum(piece.nbytes for piece in pieces)
        write_at(file, group[0][0], pieces)
        # While others are decoded.
        begin_writeback(file, group[0][0], length)
        return length

    groups = list(batches(_with_offsets(manifest), lambda item: _length(item[1]), BATCH))
    # The largest first: a large one begun last would keep one worker busy and the others idle.
    groups.sort(key=lambda group: -_bytes([place for _, place in group]))
    # Of those that can be decoded: objects may be on their way still.
    turns = reader.in_turn([[place for _, place in group] for group in groups])
    ordered, workers = (groups[turn] for turn in turns), storage.settings.workers
    for written in in_order(write, ordered, workers, small_results=True):
        reader.progress.advance(written)
    reader.finish()


def _length(place: Placement) -> int:
    return place.stop - place.start


def _bytes(group: Sequence[Placement]) -> int:
    return sum(map(_length, group))


def _with_offsets(manifest: Manifest) -> Iterator[tuple[int, Placement]]:
    offset = 0
    for place in placements(manifest):
        yield offset, place
        offset += _length(place)


class _ChunkReader:
    """Decodes chunks; skeleton chunks, which serve many placements, are kept a while."""

    def __init__(self, storage: StorageContext, manifest: Manifest, name: str) -> None:
        self._arrivals, objects = storage.store.arrivals, manifest.objects()
        limit = storage.settings.expand_limit
        if self._arrivals.awaits(objects) and not is_paid_in_any_order(manifest, limit):
            self._arrivals.wait_for(objects)
        self.is_arriving = self._arrivals.awaits(objects)
        if not self.is_arriving:
            storage.charge(manifest.chunks())
        # While another thread downloads, its progress is shown, not this one.
        self.progress = NullProgress() if self._arrivals.pending else storage.progress
        self.progress.start(f"restoring {name}", manifest.size)
        self._storage = storage
        self._frames = ReadAhead(storage.store)
        self._skeleton = {chunk.hash for chunk in manifest.skeleton}
        self._kept: OrderedDict[str, memoryview] = OrderedDict()
        self._charged: set[str] = set()
        self._lock = threading.Lock()
        self._locations: dict[tuple[str, Ref], Location] = {}

    def read(self, batch: list[Placement]) -> list[memoryview]:
        """Return the bytes of each placement."""
        return [self._chunk(place.chunk)[place.start : place.stop] for place in batch]

    def _chunk(self, chunk: Chunk) -> memoryview:
        with self._lock:
            if chunk.hash in self._kept:
                return self._kept[chunk.hash]
        if self.is_arriving:
            self._await(chunk)
        try:
            decoded = chunk_decoder.decode(self._frames, chunk, self._storage.index.knows)
        except CorruptObjectError:
            # Whatever was verified once: adding the content again must mend it.
            self._storage.index.forget(ref.oid for ref in chunk.chain)
            raise
        data = decoded.data.data
        with self._lock:
            self._storage.charge_bases(chunk, decoded.expanded)
            self._locations.update({(row.hash, row.ref): row for row in decoded.locations})
            if chunk.hash in self._skeleton:
                self._kept[chunk.hash] = data
                if len(self._kept) > 2:
                    self._kept.popitem(last=False)
        return data

    def _await(self, chunk: Chunk) -> None:
        """Wait for the objects of a chunk, and charge it once they are here."""
        self._arrivals.wait_for({ref.oid for ref in chunk.chain})
        with self._lock:
            if chunk.hash not in self._skeleton or chunk.hash not in self._charged:
                self._charged.add(chunk.hash)
                self._storage.charge([chunk])

    def in_turn(self, groups: Sequence[Sequence[Placement]]) -> Iterator[int]:
        """Yield the number of each group of placements when its objects are here."""
        return self._arrivals.in_turn(
            [{ref.oid for place in group for ref in place.chunk.chain} for group in groups]
        )

    def finish(self) -> None:
        """Let the index know what was verified, so that adding the same bytes costs nothing."""
        oids = {row.ref.oid for row in self._locations.values()}
        self._storage.index.add(self._locations.values(), self._storage.store.stamps(oids))
        self.progress.finish()
