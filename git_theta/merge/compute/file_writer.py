"""The merged file as a stream: tensors put into their places, and their checksums renewed."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from git_theta.core.arrays import Bytes
from git_theta.core.layout import Buffer, Checksum
from git_theta.merge.compute.inflating import inflate
from git_theta.merge.compute.output import Assembly


def checksum_patches(assembly: Assembly, number: int, data: Bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the places of the checksums of span ``number``, and what they are for its bytes."""
    if found := assembly.checksums.get(number):
        head = _head(assembly, number, found)
        for place in found.places:
            yield place, _four_bytes(zlib.crc32(data.data, zlib.crc32(head)))


def _head(assembly: Assembly, number: int, found: Checksum) -> bytes:
    """Return the bytes before span ``number`` that its checksum is of too."""
    count = assembly.layout.spans[number].start - found.start
    return assembly.rebuilt.pieces[number][-count:] if count else b""


def _four_bytes(number: int) -> bytes:
    return number.to_bytes(4, "little")


class FileWriter:
    """Puts tensors into their places, and renews the checksums of those that changed.

    ``changed`` are the numbers of the spans whose bytes are not those of the file that the
    skeleton is from.
    """

    def __init__(self, assembly: Assembly, changed: set[int]) -> None:
        self._assembly = assembly
        self._spans = assembly.layout.spans
        self._renewed = {n: each for n, each in assembly.checksums.items() if n in changed}
        self._next = 0
        self._position = 0
        self._checksum = 0
        self._held: list[Bytes] = []
        self._patches: dict[int, bytes] = {}

    def put(self, number: int, buffer: Bytes) -> Iterator[Buffer]:
        """Yield the next bytes of span ``number``, after all bytes before the span.

        Where its checksum stands before it, all of them come with the last.
        """
        if self._is_early(number):
            self._held.append(buffer)
            if sum(held.size for held in self._held) == self._spans[number].length:
                yield from self._release(number)
            return
        yield from self._go_to(number)
        if number in self._renewed:
            self._checksum = zlib.crc32(buffer.data, self._checksum)
        self._position += buffer.size
        yield buffer.data

    def finish(self) -> Iterator[Buffer]:
        """Yield the bytes after the last tensor."""
        yield from self._go_to(len(self._spans))

    def _release(self, number: int) -> Iterator[Buffer]:
        held, self._held = self._held, []
        data, checksum = (buffer.data for buffer in held), zlib.crc32(self._head(number))
        if sizes := self._renewed[number].sizes:
            inflated = inflate(data)
            checksum = inflated.checksum
            self._patches.update((place, _four_bytes(inflated.length)) for place in sizes)
        else:
            for each in data:
                checksum = zlib.crc32(each, checksum)
        self._renew(number, checksum)
        yield from self._go_to(number)
        for buffer in held:
            self._position += buffer.size
            yield buffer.data

    def _go_to(self, number: int) -> Iterator[bytes]:
        while self._next <= number:
            if self._next - 1 in self._renewed and not self._is_early(self._next - 1):
                self._renew(self._next - 1, self._checksum)
            yield self._piece(self._next)
            self._checksum = zlib.crc32(self._head(self._next))
            self._next += 1

    def _piece(self, number: int) -> bytes:
        piece = bytearray(self._assembly.rebuilt.pieces[number])
        start, stop = self._position, self._position + len(piece)
        for place in [place for place in self._patches if start <= place < stop]:
            piece[place - start : place - start + 4] = self._patches.pop(place)
        self._position = stop
        return bytes(piece)

    def _is_early(self, number: int) -> bool:
        """Return whether a checksum of a span that is renewed stands before it."""
        found = self._renewed.get(number)
        return found is not None and min(found.places) < self._spans[number].start

    def _head(self, number: int) -> bytes:
        found = self._renewed.get(number)
        return _head(self._assembly, number, found) if found else b""

    def _renew(self, number: int, checksum: int) -> None:
        for place in self._renewed[number].places:
            self._patches[place] = _four_bytes(checksum)
