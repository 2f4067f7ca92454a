"""The merged file as a stream: the skeleton's pieces between those of the tensors."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from git_theta.core.layout import Buffer
from git_theta.core.registry import Bytes
from git_theta.errors import MergeError
from git_theta.merge.assembly import Assembly


class FileWriter:
    """Puts tensors into their places, and renews the checksums of those that changed.

    ``changed`` are the numbers of the spans whose bytes are not those of the file that the
    skeleton is from.
    """

    def __init__(self, assembly: Assembly, changed: set[int]) -> None:
        self._pieces = assembly.rebuilt.pieces
        self._spans = assembly.layout.spans
        self._checksums = assembly.checksums
        self._changed = changed
        self._next = 0
        self._position = 0
        self._checksum = 0
        self._patches: dict[int, bytes] = {}

    def put(self, number: int, buffer: Bytes) -> Iterator[Buffer]:
        """The next bytes of span ``number``, after all that comes before the span."""
        yield from self._go_to(number)
        if self._is_renewed(number):
            self._checksum = zlib.crc32(buffer.data, self._checksum)
        self._position += buffer.size
        yield buffer.data

    def finish(self) -> Iterator[Buffer]:
        """What comes after the last tensor."""
        yield from self._go_to(len(self._spans))

    def _go_to(self, number: int) -> Iterator[bytes]:
        while self._next <= number:
            if self._next and self._is_renewed(self._next - 1):
                self._renew(self._next - 1)
            yield self._piece(self._next)
            self._checksum = 0
            self._next += 1

    def _piece(self, number: int) -> bytes:
        piece = bytearray(self._pieces[number])
        start, stop = self._position, self._position + len(piece)
        for place in [place for place in self._patches if start <= place < stop]:
            piece[place - start : place - start + 4] = self._patches.pop(place)
        self._position = stop
        return bytes(piece)

    def _is_renewed(self, number: int) -> bool:
        return number in self._changed and self._spans[number].start in self._checksums

    def _renew(self, number: int) -> None:
        span = self._spans[number]
        found = self._checksums[span.start]
        if found.length != span.length:
            raise MergeError(f"the checksum of {span.name} in the file is not of all its bytes")
        for place in found.places:
            self._patches[place] = self._checksum.to_bytes(4, "little")
