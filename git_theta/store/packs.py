"""Packs: frames share an object, because a transfer costs per object, not per byte.

By default small ones do. Where large ones do too, a pack waits in a file: an object is named by the
hash of its bytes, so its own file can be written only when it is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from threading import Lock
from types import TracebackType
from typing import IO

from git_theta.core.hashes import Ref
from git_theta.core.layout import Buffer
from git_theta.core.os_errors import store_error
from git_theta.store.objects import ObjectStore

IN_MEMORY = 64 << 20
"""Bytes of a pack; more are written to a file."""

_BLOCK = 4 << 20


@dataclass(slots=True)
class _Pack:
    """The frames of one object to be, in order; each with its offset, length and promise.

    The last of them are in ``buffers``, those before in ``file``.
    """

    store: ObjectStore
    buffers: list[Buffer] = field(default_factory=list)
    places: list[tuple[int, int, Future[Ref]]] = field(default_factory=list)
    size: int = 0
    file: IO[bytes] | None = None
    filed: int = 0

    def add(self, buffers: Sequence[Buffer], length: int) -> Future[Ref]:
        promise: Future[Ref] = Future()
        promise.set_running_or_notify_cancel()  # nobody can take a frame out of a pack
        self.places.append((self.size, length, promise))
        self.buffers += buffers
        self.size += length
        if self.size - self.filed > IN_MEMORY:
            self._spill()
        return promise

    def _spill(self) -> None:
        try:
            self.file = self.file or self.store.scratch_file()
            self.file.writelines(self.buffers)
        except OSError as error:
            raise store_error(error, self.store.root) from error
        self.buffers.clear()
        self.filed = self.size

    def pieces(self) -> Iterable[Buffer]:
        """Return the frames back to back; they can be read more than once."""
        if self.file is None:
            return self.buffers
        self._spill()
        return _Blocks(self.file, self.store)

    def close(self) -> None:
        """Forget the frames."""
        if self.file is not None:
            self.file.close()


@dataclass(frozen=True, slots=True)
class _Blocks:
    """A file's bytes, block by block, as often as they are asked for."""

    file: IO[bytes]
    store: ObjectStore

    def __iter__(self) -> Iterator[Buffer]:
        try:
            self.file.seek(0)
            while block := self.file.read(_BLOCK):
                yield block
        except OSError as error:
            raise store_error(error, self.store.root) from error


class PackWriter:
    """Stores frames: big ones as objects of their own, small ones packed in the order of ``add``.

    Which frames share an object depends on that order only, so equal calls give equal objects.
    Holds at most ``pack_size + pack_limit`` bytes or ``IN_MEMORY``, and as much again for each
    thread that is just writing a pack. As a context manager: ``flush`` on success, ``abort`` on an
    exception.
    """

    def __init__(self, store: ObjectStore, pack_limit: int, pack_size: int) -> None:
        self._store = store
        self._limit = pack_limit
        self._size = pack_size
        self._lock = Lock()
        self._open = _Pack(store)
        self._failure: BaseException | None = None

    def add(self, buffers: Sequence[Buffer]) -> Future[Ref]:
        """Store one frame, given as ``buffers`` one after another.

        A frame of at least ``pack_limit`` bytes is written at once, by the calling thread. A
        smaller one waits in memory: its future is resolved when its pack has grown to
        ``pack_size`` (the thread that fills the pack writes it) or at ``flush``. The future raises
        what writing the object raised.
        """
        length = sum(memoryview(buffer).nbytes for buffer in buffers)
        if length >= self._limit:
            alone = _Pack(self._store)
            promise = alone.add(buffers, length)
            self._write(alone, self._store.write_behind)
            return promise
        with self._lock:
            promise = self._open.add(buffers, length)
            full = self._take() if self._open.size >= self._size else _Pack(self._store)
        self._write(full, self._store.write_behind)
        return promise

    def flush(self) -> None:
        """Write the open pack and make every object durable; raises what any write has raised."""
        with self._lock:
            last = self._take()
        # There is nothing else to do meanwhile, and a file of its own seldom has another pack.
        self._write(last, self._store.write)
        if self._failure is not None:
            raise self._failure
        self._store.sync()

    def abort(self) -> None:
        """Forget the open pack: its futures raise ``CancelledError``. What is written stays."""
        with self._lock:
            dropped = self._take()
        dropped.close()
        for _, _, promise in dropped.places:
            promise.set_exception(CancelledError())

    def _take(self) -> _Pack:
        pack, self._open = self._open, _Pack(self._store)
        return pack

    def _write(self, pack: _Pack, write: Callable[[Iterable[Buffer]], Ref]) -> None:
        if not pack.places:
            return
        try:
            whole = write(pack.pieces())
        except BaseException as error:  # also an interrupt: somebody may be waiting
            self._failure = self._failure or error
            for _, _, promise in pack.places:
                promise.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        finally:
            pack.close()
        for offset, length, promise in pack.places:
            promise.set_result(Ref(whole.oid, whole.size, offset, length))

    def __enter__(self) -> PackWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.flush()
        else:
            self.abort()
