"""What a second version of a file adds to what is stored."""

from __future__ import annotations

from pathlib import Path

from git_theta.checkpoint.clean import clean
from git_theta.checkpoint.context import StorageContext
from git_theta.checkpoint.smudge import smudge
from git_theta.core.settings import Settings
from git_theta.store import Index, ObjectStore
from git_theta.testing.formats import MemorySource


def grown(root: Path, name: str, first: bytes, second: bytes) -> int:
    """Return the bytes that ``second`` adds after ``first``; it comes back byte for byte."""
    root.mkdir(exist_ok=True)
    with Index(root) as index:
        storage = StorageContext(ObjectStore(root), index, Settings())
        before = clean(MemorySource(first), name, storage).manifest
        size = stored(storage)
        after = clean(MemorySource(second), name, storage, [before]).manifest
        assert b"".join(smudge(after, storage)) == second
        return stored(storage) - size


def stored(storage: StorageContext) -> int:
    """Return the bytes of all objects."""
    return sum(storage.store.size(oid) for oid in storage.store.oids())
