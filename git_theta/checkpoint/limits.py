"""What decoding may cost, measured by the stored bytes that somebody paid for.

A frame of 150 bytes may stand for 64 MiB, a manifest may name it a million times, and a product of
constant factors takes minutes: time and disk are bounded before work begins, by sizes that are
known from what is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from git_theta.core.hashes import Ref
from git_theta.core.layout import Encoded
from git_theta.core.messages import short_id
from git_theta.errors import LimitError, MissingObjectError
from git_theta.manifest import Chunk, Manifest

# zlib, with which Git stores its own files, expands by up to 1,032 times.
RATIO = 1000

# Passes over the chunk, times its bytes. In a square chunk of 64 MiB, a stored byte of a bfloat16
# factor is there for 4,100 of them, one of a factor of small integers for 15,000. A second does
# 2.8e9, so 16 passes over such a chunk take 0.4 s.
_WORK_PER_STORED = 32 << 10
_WORK_PER_RAW = 16


def is_affordable(encoding: object, encoded: Encoded, length: int, stored: int) -> bool:
    """Return whether a frame of ``stored`` bytes may take the work that it asks for.

    An encoding whose decoding can take more than a few passes over the chunk has a method
    ``work(encoded, length)``: the passes that it takes, times ``length`` raw bytes.
    """
    # Not a protocol that is checked at run time: that took a tenth of decoding small chunks.
    work: Callable[[Encoded, int], int] | None = getattr(encoding, "work", None)
    allowed = _WORK_PER_RAW * length + _WORK_PER_STORED * stored
    return work is None or work(encoded, length) <= allowed


@dataclass(slots=True)
class Allowance:
    """What one command decoded, and the frames that pay for it; each frame pays once."""

    _paid: set[Ref] = field(default_factory=set)
    _stored: int = 0
    _decoded: int = 0

    def charge(
        self,
        chunks: Iterable[Chunk],
        size_of: Callable[[str], int | None],
        limit: int,
        times: int = 1,
    ) -> None:
        """Account for chunks before they are decoded, each so many ``times``.

        ``size_of`` tells the size of an object that is here; one of another size pays for nothing.
        Raises ``LimitError`` where this and what came before is over ``limit`` bytes beyond
        ``RATIO`` times what is stored, ``MissingObjectError`` where it is not here.
        """
        wanted = list(chunks)
        refs = {ref for chunk in wanted for ref in chunk.chain} - self._paid
        sizes = {oid: size_of(oid) for oid in {ref.oid for ref in refs}}
        if missing := min((oid for oid, size in sizes.items() if size is None), default=None):
            what = f"object {short_id(missing)} is missing locally"
            raise MissingObjectError(what, hint="git theta fetch")
        here = {ref for ref in refs if sizes[ref.oid] == ref.size}
        self._paid |= here
        self._stored += sum(ref.length for ref in here)
        decoded = times * _declared(wanted)
        self._check(self._decoded + decoded, limit)
        # Only now: what is refused costs nothing, and the next checkpoint may be an honest one.
        self._decoded += decoded

    def spend(self, decoded: int, limit: int) -> None:
        """Account for bytes that were decoded; raises as ``charge`` does."""
        self._decoded += decoded
        self._check(self._decoded, limit)

    def _check(self, decoded: int, limit: int) -> None:
        if decoded > RATIO * self._stored + limit:
            raise LimitError(
                f"it costs as much as decoding {decoded:,} bytes, and {self._stored:,} are "
                f"stored for it: over {RATIO:,} times as many, and theta.expandLimit={limit} more",
                hint="if you trust this repository: git config theta.expandLimit "
                f"{-(-decoded >> 30)}g",
            )


def excess(manifest: Manifest) -> int:
    """Return by how many bytes a checkpoint alone is beyond ``RATIO`` times what is stored."""
    chunks = list(manifest.chunks())
    stored = sum(ref.length for ref in {ref for chunk in chunks for ref in chunk.chain})
    return max(0, _declared(chunks) - RATIO * stored)


def is_paid_in_any_order(manifest: Manifest, limit: int) -> bool:
    """Return whether any part may be decoded, and charged, before what the others need is here.

    Each frame pays for the first chunk that reads it alone; what is beyond that may add up to
    ``limit`` bytes.
    """
    paid, beyond = set[Ref](), 0
    for chunk in manifest.chunks():
        own = set(chunk.chain) - paid
        paid |= own
        beyond += max(0, _declared([chunk]) - RATIO * sum(ref.length for ref in own))
    return beyond <= limit


def _declared(chunks: Iterable[Chunk]) -> int:
    """Bytes to decode, were every base as long as its chunk."""
    return sum(chunk.length * len(chunk.chain) for chunk in chunks)
