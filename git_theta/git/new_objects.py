"""New objects, named here and given to one git in a pack: a program each took 3 ms."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from struct import pack

from git_theta.git.repository import Repository

_KINDS = {"commit": 1, "tree": 2, "blob": 3}


class NewObjects:
    """Objects by their ids, of the format that a repository has; ``write`` puts them there.

    ``env`` may send what is written to another object directory.
    """

    def __init__(self, repo: Repository, env: Mapping[str, str] | None = None) -> None:
        self._repo = repo
        self._env = dict(env or {})
        self._is_sha256 = repo.config_value("extensions.objectFormat") == "sha256"
        self._objects: dict[str, tuple[str, bytes]] = {}

    def add(self, kind: str, content: bytes) -> str:
        """Take in an object, ``commit``, ``tree`` or ``blob``; return its id."""
        name = self._hash(f"{kind} {len(content)}\0".encode() + content).hex()
        self._objects[name] = (kind, content)
        return name

    def write(self) -> None:
        """Write all objects; raises ``GitError``."""
        self._repo.git("unpack-objects", "-q", stdin=self._pack(), env=self._env)

    def _pack(self) -> bytes:
        """Return the pack of all objects (gitformat-pack(5))."""
        records = [_record(kind, content) for kind, content in self._objects.values()]
        body = b"".join([b"PACK", pack(">II", 2, len(records)), *records])
        return body + self._hash(body)

    def _hash(self, data: bytes) -> bytes:
        from hashlib import sha1, sha256  # loads OpenSSL, which takes 3 ms

        return (sha256(data) if self._is_sha256 else sha1(data, usedforsecurity=False)).digest()


def _record(kind: str, content: bytes) -> bytes:
    size = len(content)
    head = bytearray([_KINDS[kind] << 4 | size & 15])
    size >>= 4
    while size:
        head[-1] |= 0x80
        head.append(size & 0x7F)
        size >>= 7
    return bytes(head) + zlib.compress(content, 1)
