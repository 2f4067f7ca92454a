"""git's pkt-line framing (gitprotocol-common(5)), for the filter protocol in both directions.

A packet is four hex digits, its length with themselves, and a payload of at most 65516 bytes;
``0000`` is a flush packet.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import IO

from git_theta.core import system
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
    """Packets from a file; a pipe is read in pieces of up to 1 MiB."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = _with_large_buffer(file)

    def packet(self) -> bytes | None:
        """Return the next payload, ``None`` for a flush packet.

        Raises ``EOFError`` where the stream ends between packets, ``DisconnectedError`` where it
        ends inside one, ``GitError`` when the bytes are no packet.
        """
        header = self._file.read(4)
        if header == _FLUSH:
            return None
        if not header:
            raise EOFError
        length = _payload_length(header)
        payload = self._file.read(length)
        if len(payload) < length:
            raise DisconnectedError("git ended in the middle of a packet")
        return payload

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

    def drain(self) -> None:
        """Read what is left and forget it: git reads no answer before it has sent all."""
        for _ in self:
            pass


class PacketWriter:
    """Packets to a file. Raises ``DisconnectedError`` when nobody reads them any more."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        system.enlarge_pipe(file, _BUFFER)

    def lines(self, *texts: str) -> None:
        """One packet for each text, then a flush packet."""
        packets = [b"%04x" % (len(text) + 5) + text + b"\n" for text in map(encode, texts)]
        self._write([*packets, _FLUSH])

    def data(self, data: Buffer) -> None:
        """Write as many packets as ``data`` needs; nothing is copied."""
        view = memoryview(data).cast("B")
        whole = len(view) - len(view) % MAX_PAYLOAD
        pieces: list[Buffer] = []
        for start in range(0, whole, MAX_PAYLOAD):
            pieces += (_FULL_HEADER, view[start : start + MAX_PAYLOAD])
        if rest := view[whole:]:
            pieces += (b"%04x" % (len(rest) + 4), rest)
        self._write(pieces)

    def end(self) -> None:
        """Write a flush packet."""
        self._write([_FLUSH])

    def _write(self, buffers: list[Buffer]) -> None:
        try:
            system.write_all(self._file, buffers)
        except BrokenPipeError as error:
            raise DisconnectedError("git no longer reads what it asked for") from error


def _payload_length(header: bytes) -> int:
    if len(header) < 4:
        raise DisconnectedError("git ended in the middle of a packet")
    length = int(header, 16) if _HEX.issuperset(header) else -1
    if not 4 <= length <= MAX_PAYLOAD + 4:
        raise GitError(f"this is no packet of the filter protocol: {header!r}")
    return length - 4


def _with_large_buffer(file: IO[bytes]) -> IO[bytes]:
    """Return the same stream, read in larger pieces where it is a pipe: 1.3 times as fast."""
    if not isinstance(file, io.BufferedReader):
        return file
    system.enlarge_pipe(file, _BUFFER)
    return io.BufferedReader(io.FileIO(file.fileno(), closefd=False), _BUFFER)
