"""What a file says beside its tensors, where not every byte is understood."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from git_theta.core.layout import Source, TensorSpan

_BLOCK = 1 << 20


def skeleton_digest(source: Source, spans: Iterable[TensorSpan]) -> bytes:
    """Return a hash of all bytes of the file that are in none of ``spans``, which are in order."""
    digest, position = hashlib.sha256(), 0
    for span in spans:
        _update(digest, source, position, span.start)
        position = span.start + span.length
    _update(digest, source, position, source.size)
    return digest.digest()


def range_digest(source: Source, start: int, stop: int) -> bytes:
    """Return a hash of the bytes from ``start`` to ``stop``."""
    digest = hashlib.sha256()
    for block in blocks(source, start, stop):
        digest.update(block)
    return digest.digest()


def blocks(source: Source, start: int, stop: int) -> Iterator[bytes]:
    """Yield the bytes from ``start`` to ``stop`` without holding them all."""
    for offset in range(start, stop, _BLOCK):
        yield source.read(offset, min(_BLOCK, stop - offset))


def _update(digest: hashlib._Hash, source: Source, start: int, stop: int) -> None:
    digest.update((stop - start).to_bytes(8, "little"))
    for block in blocks(source, start, stop):
        digest.update(block)
