"""The bytes that manifests stand for, decoded for a merge."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise

import numpy as np

from git_theta.checkpoint import chunk_decoder
from git_theta.checkpoint.context import StorageContext
from git_theta.core.arrays import Bytes, new_array
from git_theta.core.hashes import content_hash
from git_theta.core.parallel import in_order
from git_theta.core.system import release_memory
from git_theta.manifest import Chunk, Manifest, TensorEntry
from git_theta.store import Location, ReadAhead

BUDGET = 512 << 20
"""Bytes of parameters that a merge has in memory at a time, unless one alone is larger."""

# A tensor above this is decoded by all threads; smaller ones are by one each.
_SHARED = 256 << 20


class Reader:
    """Decodes chunks, and lets the index know what was verified.

    A merged checkpoint then stores nothing again that it takes from one side.
    """

    def __init__(self, storage: StorageContext) -> None:
        self._storage = storage
        self._frames = ReadAhead(storage.store)

    @property
    def workers(self) -> int:
        """Number of threads that decode."""
        return self._storage.settings.workers

    def read(self, wanted: Sequence[Chunk]) -> list[Bytes]:
        """Return the raw bytes of each chunk; not to be written to."""
        decoded = [*chunk_decoder.decode_each(self._frames, wanted)]
        self._note(row for each in decoded for row in each.locations)
        return [each.data for each in decoded]

    def _note(self, verified: Iterable[Location]) -> None:
        self._storage.index.add(dict.fromkeys(verified))

    def tensors(self, entries: Sequence[TensorEntry]) -> list[Bytes]:
        """Return all bytes of each tensor's storage.

        Not to be written to, though torch may think so.
        """
        if sum(entry.length for entry in entries) > BUDGET // 2:
            release_memory()
        if all(len(entry.chunks) == 1 for entry in entries):
            read = self.read([entry.chunks[0] for entry in entries])
            return [data if data.flags.writeable else data.copy() for data in read]
        return self._joined(entries)

    def _joined(self, entries: Sequence[TensorEntry]) -> list[Bytes]:
        """Tensors of several chunks: the first of each, then the second of each, and so on."""
        wholes = [new_array(entry.length) for entry in entries]
        is_large = max(entry.length for entry in entries) > _SHARED
        workers = self._storage.settings.workers if is_large else 1
        for _ in in_order(self._fill, _aligned(entries, wholes), workers, small_results=True):
            pass
        return wholes

    def _fill(self, parts: Sequence[tuple[Chunk, Bytes]]) -> None:
        """Decode chunks, each into its place, before the next one is decoded."""
        decoded = chunk_decoder.decode_each(self._frames, [chunk for chunk, _ in parts])
        verified: list[Location] = []
        for _, place in parts:
            found = next(decoded)
            place[:] = found.data
            verified += found.locations
            del found
        self._note(verified)

    def digest(self, entry: TensorEntry) -> str:
        """Return the BLAKE3 hash of all bytes of a tensor's storage."""
        if len(entry.chunks) == 1:
            return entry.chunks[0].hash
        return content_hash(self.tensors([entry])[0].data)

    def skeleton(self, manifest: Manifest) -> bytes:
        """Return every byte of the file that is in no tensor."""
        return b"".join(map(bytes, self.read(manifest.skeleton)))


def _aligned(
    entries: Sequence[TensorEntry], wholes: Sequence[Bytes]
) -> Iterator[list[tuple[Chunk, Bytes]]]:
    """Yield the chunks of the same number in every tensor, each with its place in the whole."""
    rows = []
    for entry, whole in zip(entries, wholes, strict=True):
        ends = [*accumulate((chunk.length for chunk in entry.chunks), initial=0)]
        places = (whole[start:stop] for start, stop in pairwise(ends))
        rows.append([*zip(entry.chunks, places, strict=True)])
    for number in range(max(map(len, rows))):
        yield [row[number] for row in rows if number < len(row)]


class SkeletonSource:
    """A file whose tensors are read as zeros: what formats need to look at all the rest."""

    def __init__(self, manifest: Manifest, skeleton: bytes) -> None:
        self.size = manifest.size
        self._skeleton = np.frombuffer(skeleton, np.uint8)
        # Runs of skeleton bytes: where each starts in the file, and in the skeleton.
        self._starts, self._origins = [0], [0]
        position = taken = 0
        for entry in manifest.tensors:
            taken += entry.gap
            position += entry.gap + entry.length
            self._starts.append(position)
            self._origins.append(taken)
        self._origins.append(len(skeleton))

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes at ``offset``; no more than there are."""
        stop = min(offset + length, self.size)
        data = np.zeros(max(0, stop - offset), np.uint8)
        for run in range(bisect_right(self._starts, offset) - 1, len(self._starts)):
            start, origin = self._starts[run], self._origins[run]
            if start >= stop:
                break
            first = max(offset, start)
            last = min(stop, start + self._origins[run + 1] - origin)
            if first < last:
                piece = self._skeleton[first - start + origin : last - start + origin]
                data[first - offset : last - offset] = piece
        return data.tobytes()
