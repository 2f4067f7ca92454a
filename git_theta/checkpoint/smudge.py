"""Smudge: rebuild a checkpoint from its manifest and objects, every chunk verified."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator

from blake3 import blake3

from git_theta.checkpoint import chunk_codec
from git_theta.checkpoint.chunking import (
    BATCH,
    Placement,
    placements,
)
from git_theta.checkpoint.context import StorageContext
from git_theta.core.hashes import Ref
from git_theta.core.parallel import batches, in_order
from git_theta.errors import CorruptObjectError
from git_theta.manifest import Chunk, Manifest
from git_theta.store import Location


def smudge(manifest: Manifest, storage: StorageContext, name: str = "") -> Iterator[memoryview]:
    """The file that ``manifest`` describes, in order, piece by piece, every chunk verified.

    Raises ``LimitError`` before anything is decoded, ``MissingObjectError`` or
    ``CorruptObjectError``; pieces given before that are right, but the caller must discard them.
    """
    storage.allowance.charge(manifest, storage.store.size, storage.settings.expand_limit)
    digest = blake3()
    reader = _ChunkReader(storage, manifest)
    storage.progress.start(f"restoring {name}", manifest.size)
    groups = batches(placements(manifest), lambda place: place.stop - place.start, BATCH)
    for pieces in in_order(reader.read, groups, storage.settings.workers):
        for piece in pieces:
            digest.update(piece)
            storage.progress.advance(piece.nbytes)
            yield piece
    if digest.hexdigest() != manifest.hash:
        raise CorruptObjectError(
            "the rebuilt file does not have the hash that its manifest names", path=name
        )
    reader.remember()
    storage.progress.finish()


class _ChunkReader:
    """Decodes chunks; skeleton chunks, which serve many placements, are kept a while."""

    def __init__(self, storage: StorageContext, manifest: Manifest) -> None:
        self._workshop = storage
        self._skeleton = {chunk.hash for chunk in manifest.skeleton}
        self._kept: OrderedDict[str, memoryview] = OrderedDict()
        self._lock = threading.Lock()
        self._locations: dict[tuple[str, Ref], Location] = {}

    def read(self, batch: list[Placement]) -> list[memoryview]:
        """The bytes of each placement."""
        return [self._chunk(place.chunk)[place.start : place.stop] for place in batch]

    def _chunk(self, chunk: Chunk) -> memoryview:
        with self._lock:
            if chunk.hash in self._kept:
                return self._kept[chunk.hash]
        try:
            decoded = chunk_codec.decode(self._workshop.store, chunk)
        except CorruptObjectError:
            # Whatever was verified once: adding the content again must mend it.
            self._workshop.index.forget(ref.oid for ref in chunk.chain)
            raise
        data = decoded.data.data
        longer = sum(row.raw_length for row in decoded.locations) - chunk.length * len(chunk.chain)
        with self._lock:
            if longer > 0:  # bases are longer than a manifest can say
                self._workshop.allowance.spend(longer, self._workshop.settings.expand_limit)
            self._locations.update({(row.hash, row.ref): row for row in decoded.locations})
            if chunk.hash in self._skeleton:
                self._kept[chunk.hash] = data
                if len(self._kept) > 2:
                    self._kept.popitem(last=False)
        return data

    def remember(self) -> None:
        """Let the index know what was verified, so that adding the same bytes costs nothing."""
        oids = {row.ref.oid for row in self._locations.values()}
        self._workshop.index.add(self._locations.values(), self._workshop.store.stamps(oids))
