"""The bytes that git sends to a clean filter, as a file that can be read by position.

They are nearly always the bytes of the work-tree file, which is then read in place of a copy. But
``git hash-object --path``, ``git stash`` and others send something else: what differs from the
file on disk is spooled.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from git_theta.errors import ChangedError
from git_theta.system import FileSource, store_error
from git_theta.tensor import Source

HEAD_BYTES = 1024
_COPY = 1 << 20


@dataclass(frozen=True, slots=True)
class Incoming:
    """Content by position, its BLAKE3 hash, and its first ``HEAD_BYTES`` bytes."""

    source: Source
    hash: str
    head: bytes

    def text(self) -> bytes:
        """All of it."""
        return self.source.read(0, self.source.size)


@contextmanager
def receive(content: Iterable[bytes], file: Path, spool_folder: Path) -> Iterator[Incoming]:
    """Take all of ``content``, comparing it with ``file`` as it comes.

    The hash is that of what came, so that whoever reads the source later can tell whether the
    file changed in between.
    """
    digest, head = blake3(), b""
    with ExitStack() as stack:
        reader = _Reader(stack, file, spool_folder)
        for packet in content:
            digest.update(packet)
            if len(head) < HEAD_BYTES:
                head += packet[: HEAD_BYTES - len(head)]
            reader.take(packet)
        yield Incoming(reader.finish(), digest.hexdigest(), head)


class _Reader:
    """Follows the file while it agrees, and copies to a spool from the first difference on."""

    def __init__(self, stack: ExitStack, file: Path, spool_folder: Path) -> None:
        self._stack = stack
        self._folder = spool_folder
        self._file = stack.enter_context(FileSource(file)) if _is_regular(file) else None
        self._position = 0
        self._spool: tempfile._TemporaryFileWrapper[bytes] | None = None

    def take(self, packet: bytes) -> None:
        if self._spool is None and not self._agrees(packet):
            self._start_spool()
        if self._spool is not None:
            self._write(packet)
        self._position += len(packet)

    def finish(self) -> Source:
        if self._spool is None and (self._file is None or self._file.size != self._position):
            self._start_spool()
        if self._spool is None:
            assert self._file is not None
            return self._file
        self._spool.flush()
        return self._stack.enter_context(FileSource(Path(self._spool.name)))

    def _agrees(self, packet: bytes) -> bool:
        if self._file is None:
            return False
        try:
            return self._file.read(self._position, len(packet)) == packet
        except ChangedError:
            return False

    def _start_spool(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # Deleted when it is closed, whatever happens.
            self._spool = tempfile.NamedTemporaryFile(dir=self._folder)  # noqa: SIM115
        except OSError as error:
            raise store_error(error, self._folder) from error
        self._stack.enter_context(self._spool)
        for offset in range(0, self._position, _COPY):
            assert self._file is not None
            self._write(self._file.read(offset, min(_COPY, self._position - offset)))

    def _write(self, data: bytes) -> None:
        assert self._spool is not None
        try:
            self._spool.write(data)
        except OSError as error:
            raise store_error(error, Path(self._spool.name)) from error


def _is_regular(file: Path) -> bool:
    return file.is_file() and not file.is_symlink()
