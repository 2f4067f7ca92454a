"""A checkpoint on disk as if it were stored: described by reading it once, and nothing written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from git_theta import formats
from git_theta.checkpoint.chunking import BATCH, RawChunk, SourceStream, raw_chunks
from git_theta.checkpoint.clean import describe
from git_theta.core.arrays import Bytes
from git_theta.core.files import FileSource
from git_theta.core.hashes import content_hash
from git_theta.core.layout import Layout
from git_theta.core.parallel import batches, in_order
from git_theta.core.settings import Settings
from git_theta.errors import ChangedError
from git_theta.manifest import Chunk, Manifest


class FileContent:
    """The chunks of a file, whose manifest names no objects.

    ``source`` must stay open for as long as chunks are read. Raises ``ChangedError`` where the
    file is no longer what it was.
    """

    def __init__(self, source: FileSource, name: str, settings: Settings) -> None:
        self._source = source
        self._name = name
        self._places: dict[str, int] = {}
        layout, self.warning = formats.scan(source, name)
        self.manifest = self._describe(layout, settings)

    def _describe(self, layout: Layout, settings: Settings) -> Manifest:
        found: defaultdict[int, list[Chunk]] = defaultdict(list)
        raw = raw_chunks(SourceStream(self._source), layout, settings.chunk_size)
        groups = batches(raw, lambda item: len(item.data), BATCH)
        ends = [span.start for span in layout.spans]
        hashed = in_order(_hashed, groups, settings.workers, small_results=True)
        for owner, length, hash_ in (row for rows in hashed for row in rows):
            found[owner].append(Chunk(length, hash_, ()))
            if owner >= 0:  # nothing asks for the skeleton's bytes
                self._places.setdefault(hash_, ends[owner])
                ends[owner] += length
        return describe(layout, self._source.size, lambda owner: tuple(found[owner]))

    def read(self, wanted: Sequence[Chunk]) -> list[Bytes]:
        """Return the raw bytes of each chunk of a tensor."""
        return [self._read(chunk) for chunk in wanted]

    def _read(self, chunk: Chunk) -> Bytes:
        data = self._source.view(self._places[chunk.hash], chunk.length)
        if content_hash(data) != chunk.hash:
            raise ChangedError(
                "the file was changed while it was read",
                path=self._name,
                hint="run the command again when nothing writes to it",
            )
        return np.frombuffer(data, np.uint8)


def _hashed(batch: list[RawChunk]) -> list[tuple[int, int, str]]:
    return [(raw.owner, len(raw.data), content_hash(raw.data)) for raw in batch]
