"""Tell whether bytes are the file that a manifest stands for, without decoding an object."""

from __future__ import annotations

from collections.abc import Iterator

from git_theta.checkpoint.chunking import BATCH, Stream, placements
from git_theta.core.hashes import content_hash
from git_theta.core.layout import Buffer
from git_theta.core.parallel import batches, in_order
from git_theta.manifest import Manifest

_Expected = tuple[str, Buffer]


def is_file_of(manifest: Manifest, stream: Stream, workers: int) -> bool:
    """Return whether ``stream`` has exactly the bytes of ``manifest``'s file.

    Each chunk is hashed where the manifest says that it lies, on ``workers`` threads. Whatever
    ``stream`` raises passes through.
    """
    groups = batches(_expected(manifest, stream), lambda item: len(item[1]), BATCH)
    return all(in_order(_agree, groups, workers, small_results=True)) and not len(stream.take(1))


def _agree(group: list[_Expected]) -> bool:
    return all(content_hash(data) == expected for expected, data in group)


def _expected(manifest: Manifest, stream: Stream) -> Iterator[_Expected]:
    """Yield the hash that each chunk must have, and the bytes that are in its place."""
    skeleton = bytearray()
    for place in placements(manifest):
        data = stream.take(place.stop - place.start)
        if place.start or place.stop < place.chunk.length:
            skeleton += data
            if place.stop < place.chunk.length:
                continue
            data, skeleton = bytes(skeleton), bytearray()
        yield place.chunk.hash, data


def cut_alike(first: Manifest, second: Manifest) -> bool:
    """Return whether two files of one size were cut into chunks at the same places."""
    return _cut(first) == _cut(second)


def _cut(manifest: Manifest) -> tuple[object, ...]:
    tensors = [(entry.gap, *(c.length for c in entry.chunks)) for entry in manifest.tensors]
    return (*tensors, [chunk.length for chunk in manifest.skeleton])
