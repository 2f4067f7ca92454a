"""Many objects from one ``git cat-file --batch``: a process per object would cost 3 ms each."""

from __future__ import annotations

import subprocess
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from git_theta.errors import GitError
from git_theta.git import command
from git_theta.git.command import encode

_PIECE = 1 << 20


class Peeked(NamedTuple):
    """A blob's id, its size in bytes, and how it begins."""

    id: str
    size: int
    head: bytes


class Batch:
    """A ``cat-file`` that is started at the first question; safe for use by several threads."""

    def __init__(self, cwd: Path, env: Mapping[str, str]) -> None:
        self._cwd = cwd
        self._env = env
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stop: weakref.finalize[..., Batch] | None = None

    def read(self, spec: str, limit: int, prefix: bytes = b"") -> bytes | None:
        """Return the content of blob ``spec`` (an object id, ``HEAD:path``, ``:path``).

        ``None`` when it is missing, no blob, over ``limit`` bytes or does not begin with
        ``prefix``, and where ``spec`` holds a line break: git would take it for two.
        """
        found = self._answer(spec, limit, prefix)
        return found[1] if found else None

    def identify(self, spec: str, limit: int) -> str | None:
        """Return the id of blob ``spec``; ``None`` as for ``read``."""
        found = self._answer(spec, limit, b"")
        return found[0] if found else None

    def peek(self, spec: str, length: int) -> Peeked | None:
        """Return what blob ``spec`` is, with its first ``length`` bytes; ``None`` without one."""
        with self._talking():
            name, kind, size, reader = self._begin(spec)
            if kind is None:
                return None
            head = _exactly(reader, min(size, length))
            self._skip(reader, size - len(head))
            return Peeked(name, size, head) if kind == "blob" else None

    def name(self, spec: str) -> str | None:
        """Return the id of what ``spec`` names, of any type; ``None`` when it is missing."""
        with self._talking():
            name, kind, size, reader = self._begin(spec)
            if kind is None:
                return None
            self._skip(reader, size)
            return name

    def load(self, name: str) -> tuple[str, bytes] | None:
        """Return type and content of an object, given by its id; ``None`` when it is missing."""
        with self._talking():
            _, kind, size, reader = self._begin(name)
            return (kind, _exactly(reader, size + 1)[:-1]) if kind else None

    def _answer(self, spec: str, limit: int, prefix: bytes) -> tuple[str, bytes] | None:
        if "\n" in spec:
            return None
        with self._talking():
            return self._read(spec, limit, prefix)

    @contextmanager
    def _talking(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except (BrokenPipeError, EOFError) as error:
                self.close()
                raise GitError("git cat-file ended early", hint="git fsck") from error

    def _begin(self, spec: str) -> tuple[str, str | None, int, IO[bytes]]:
        """Ask, and return the answer's id, type and size, and where its content follows."""
        reader = self._ask(spec)
        header = reader.readline()
        if not header.endswith(b"\n"):
            raise EOFError
        return header.split(b" ", 1)[0].decode(errors="replace"), *_parse(header), reader

    def _read(self, spec: str, limit: int, prefix: bytes) -> tuple[str, bytes] | None:
        name, kind, size, reader = self._begin(spec)
        if kind is None:
            return None
        if kind != "blob" or size > limit:
            self._skip(reader, size)
            return None
        first = _exactly(reader, min(size, len(prefix)))
        if first != prefix:
            self._skip(reader, size - len(first))
            return None
        content = first + _exactly(reader, size - len(first))
        _exactly(reader, 1)  # the line break after the content
        return name, content

    def _ask(self, spec: str) -> IO[bytes]:
        process = self._process or self._start()
        assert process.stdin
        assert process.stdout
        process.stdin.write(encode(spec) + b"\n")
        process.stdin.flush()
        return process.stdout

    def _skip(self, reader: IO[bytes], size: int) -> None:
        # Reading what nobody wants costs 1 ms per MB; another process costs 3 ms.
        if size > 8 * _PIECE:
            self.close()
            return
        _exactly(reader, size + 1)

    def _start(self) -> subprocess.Popen[bytes]:
        process = command.start(["git", "cat-file", "--batch"], cwd=self._cwd, env=self._env)
        self._process = process
        self._stop = weakref.finalize(self, _end, process)
        return process

    def renew(self) -> None:
        """Let the next question start another process, once that of another thread is answered."""
        with self._lock:
            self.close()

    def close(self) -> None:
        """End the process, even if another thread talks to it; the next question starts another."""
        self._process = None
        if self._stop:
            self._stop()
            self._stop = None


def _exactly(reader: IO[bytes], count: int) -> bytes:
    """Return ``count`` bytes; raise ``EOFError`` where the process ends before them."""
    data = reader.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _parse(header: bytes) -> tuple[str | None, int]:
    """Type and size from ``<oid> <type> <size>``; no type where git has no such object.

    The name that is asked for is repeated in ``<name> missing`` and ``<name> ambiguous``, and may
    hold blanks.
    """
    words = header.decode("utf-8", "replace").split()
    if len(words) == 3 and words[2].isdigit():
        return words[1], int(words[2])
    return None, 0


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()
