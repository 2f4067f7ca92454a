"""git's pkt-line framing (gitprotocol-common(5)), for the filter protocol in both directions.

A packet is four hex digits, its length with themselves, and a payload of at most 65516 bytes;
``0000`` is a flush packet.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import IO

from git_theta.core import streams
from git_theta.core.layout import Buffer
from git_theta.errors import GitError
from git_theta.git.command import decode, encode

MAX_PAYLOAD = 65516
_FLUSH = b"0000"
_HEX = frozenset(b"0123456789abcdefABCDEF")
_BUFFER = 1 << 20
_FULL_HEADER = b"%04x" % (MAX_PAYLOAD + 4)


class DisconnectedError(GitError):
    """The other side has ended in the middle of something; there is nobody left to answer."""


class PacketReader:
    """Packets from a file. A pipe is read straight into the memory where a payload is wanted."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = _unbuffered(file)
        self._read = streams.reader_into(self._file)
        self._header = bytearray(4)
        self._header_view = memoryview(self._header)
        self._held = 0  # bytes of the next header that were read already
        self._left = 0  # bytes of the payload that were not

    def packet(self) -> bytes | None:
        """Return the next payload, or the rest of one; ``None`` for a flush packet.

        Raises ``EOFError`` where the stream ends between packets, ``DisconnectedError`` where it
        ends inside one, ``GitError`` when the bytes are no packet.
        """
        if not self._left and not self._begin():
            return None
        payload = bytearray(self._left)
        self._receive(memoryview(payload))
        return bytes(payload)

    def readinto(self, buffer: memoryview) -> int:
        """Read payloads into ``buffer`` until it is full or a flush packet comes.

        Returns how many bytes that are: fewer than the buffer has only where all is read.
        """
        done = 0
        while done < len(buffer):
            if not self._left and not self._begin():
                break
            step = min(self._left, len(buffer) - done)
            self._receive(buffer[done : done + step])
            done += step
        return done

    def skip(self) -> bool:
        """Read the next payload, or the rest of one, and forget it; false for a flush packet."""
        if not self._left and not self._begin():
            return False
        while self._left:
            count = streams.discard(self._file, self._left)
            if not count:
                raise DisconnectedError("git ended in the middle of a packet")
            self._left -= count
        return True

    def _begin(self) -> bool:
        """Read a header; return false for a flush packet."""
        while self._held < len(self._header):
            count = self._read([self._header_view[self._held :]])
            if not count and not self._held:
                raise EOFError
            if not count:
                raise DisconnectedError("git ended in the middle of a packet")
            self._held += count
        self._held = 0
        if self._header == _FULL_HEADER:  # 15,000 times for each GB
            self._left = MAX_PAYLOAD
            return True
        if self._header == _FLUSH:
            return False
        self._left = _payload_length(bytes(self._header))
        return True

    def _receive(self, view: memoryview) -> None:
        """Fill ``view`` from the payload; with its last bytes comes the header after it."""
        while view:
            is_last = len(view) == self._left
            count = self._read([view, self._header_view] if is_last else [view])
            if not count:
                raise DisconnectedError("git ended in the middle of a packet")
            taken = min(count, len(view))
            self._left -= taken
            self._held = count - taken
            view = view[taken:]

    def line(self) -> str | None:
        """Return the next payload as text without its line break, ``None`` for a flush packet."""
        payload = self.packet()
        return None if payload is None else decode(payload).removesuffix("\n")

    def lines(self) -> Iterator[str]:
        """Lines up to the next flush packet."""
        while (line := self.line()) is not None:
            yield line

    def pairs(self) -> dict[str, str]:
        """``key=value`` lines up to the next flush packet; the last of a key wins."""
        return {key: value for key, _, value in (line.partition("=") for line in self.lines())}


class Content(Iterator[bytes]):
    """The payloads up to a flush packet. ``done`` once that was read: git has sent everything."""

    def __init__(self, reader: PacketReader) -> None:
        self._reader = reader
        self.done = False

    def __next__(self) -> bytes:
        if self.done:
            raise StopIteration
        try:
            payload = self._reader.packet()
        except EOFError:
            raise DisconnectedError("git ended in the middle of a file") from None
        if payload is None:
            self.done = True
            raise StopIteration
        return payload

    def readinto(self, buffer: memoryview) -> int:
        """Read into ``buffer``; fewer bytes than it has, or none, only at the end."""
        try:
            done = 0 if self.done else self._reader.readinto(buffer)
        except EOFError:
            raise DisconnectedError("git ended in the middle of a file") from None
        self.done = self.done or done < len(buffer)
        return done

    def drain(self) -> None:
        """Read what is left and forget it: git reads no answer before it has sent all."""
        try:
            while not self.done:
                self.done = not self._reader.skip()
        except EOFError:
            raise DisconnectedError("git ended in the middle of a file") from None


class PacketWriter:
    """Packets to a file. Raises ``DisconnectedError`` when nobody reads them any more.

    Packets with ``more`` to come wait for those: each write wakes the other side.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._waiting: list[Buffer] = []
        streams.enlarge_pipe(file, _BUFFER)

    def lines(self, *texts: str, more: bool = False) -> None:
        """One packet for each text, then a flush packet."""
        packets = [b"%04x" % (len(text) + 5) + text + b"\n" for text in map(encode, texts)]
        self._write([*packets, _FLUSH], more)

    def data(self, data: Buffer, more: bool = False) -> None:
        """Write as many packets as ``data`` needs; nothing is copied, but what waits."""
        view = memoryview(bytes(data) if more else data).cast("B")
        whole = len(view) - len(view) % MAX_PAYLOAD
        pieces: list[Buffer] = []
        for start in range(0, whole, MAX_PAYLOAD):
            pieces += (_FULL_HEADER, view[start : start + MAX_PAYLOAD])
        if rest := view[whole:]:
            pieces += (b"%04x" % (len(rest) + 4), rest)
        self._write(pieces, more)

    def end(self, more: bool = False) -> None:
        """Write a flush packet."""
        self._write([_FLUSH], more)

    def _write(self, buffers: list[Buffer], more: bool) -> None:
        self._waiting += buffers
        if more:
            return
        buffers, self._waiting = self._waiting, []
        try:
            streams.write_all(self._file, buffers)
        except BrokenPipeError as error:
            raise DisconnectedError("git no longer reads what it asked for") from error


def _payload_length(header: bytes) -> int:
    length = int(header, 16) if _HEX.issuperset(header) else -1
    if not 4 <= length <= MAX_PAYLOAD + 4:
        raise GitError(f"this is not a packet of the filter protocol: {header!r}")
    return length - 4


def _unbuffered(file: IO[bytes]) -> IO[bytes] | io.FileIO:
    """Return the same stream without the buffer of Python, where it is a pipe."""
    if not isinstance(file, io.BufferedReader):
        return file
    streams.enlarge_pipe(file, _BUFFER)
    return io.FileIO(file.fileno(), closefd=False)
