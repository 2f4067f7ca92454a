"""Names of content: the hash of raw bytes, the oid of a stored object, a place inside it."""

from __future__ import annotations

import re
from typing import NamedTuple

from blake3 import blake3

HASH_BYTES = 32
_HEX64 = re.compile(r"[0-9a-f]{64}")


def content_hash(data: bytes | bytearray | memoryview) -> str:
    """BLAKE3-256 of raw bytes, as 64 hex digits: decides "unchanged"."""
    return blake3(data).hexdigest()


def is_hex256(text: object) -> bool:
    """Return whether ``text`` is 64 lower-case hex digits."""
    return isinstance(text, str) and _HEX64.fullmatch(text) is not None


class Ref(NamedTuple):
    """The place of a frame: ``length`` bytes at ``offset`` in object ``oid`` of ``size`` bytes."""

    oid: str
    size: int
    offset: int
    length: int

    @property
    def is_whole(self) -> bool:
        """Return whether the frame is the whole object."""
        return self.offset == 0 and self.length == self.size
