"""Manifests that a file's tensors may be in already, and what is looked up in them."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import cached_property

from git_theta.core.hashes import Ref
from git_theta.core.layout import TensorSpan
from git_theta.manifest import Manifest, TensorEntry

Chain = tuple[Ref, ...]


class Parent:
    """A manifest with its tensors by name and its chains by content, each made when needed.

    Files that are added together share their parents: keep these, not the manifests.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    @cached_property
    def entries(self) -> dict[str, TensorEntry]:
        """Tensor by name."""
        return {entry.name: entry for entry in self.manifest.tensors}

    @cached_property
    def chains(self) -> dict[str, Chain]:
        """By content hash, the first chain that the manifest has for it."""
        chunks = reversed(list(self.manifest.chunks()))
        return {chunk.hash: chunk.chain for chunk in chunks}


class Parents:
    """Parents, drawn one after another as they are needed; safe for use by several threads."""

    def __init__(self, parents: Iterable[Parent | Manifest]) -> None:
        self._rest = iter(parents)
        self._drawn: list[Parent] = []
        self._lock = threading.Lock()

    def nearest(self) -> Parent | None:
        """Return the closest parent, if there is one."""
        return self._get(0)

    def chain_of(self, hash_: str) -> Chain | None:
        """Return the chain by which the closest parent that was drawn stores content ``hash_``."""
        self._get(0)
        found = (parent.chains.get(hash_) for parent in tuple(self._drawn))
        return next(filter(None, found), None)

    def entry_like(self, span: TensorSpan) -> TensorEntry | None:
        """Return the closest parent's tensor of this name, dtype and row shape."""
        position = 0
        while parent := self._get(position):
            entry = parent.entries.get(span.name)
            if entry and entry.dtype == span.dtype and entry.shape[1:] == span.shape[1:]:
                return entry
            position += 1
        return None

    def _get(self, position: int) -> Parent | None:
        with self._lock:
            if position == len(self._drawn):
                drawn = next(self._rest, None)
                if drawn is None:
                    return None
                self._drawn.append(drawn if isinstance(drawn, Parent) else Parent(drawn))
            return self._drawn[position]
