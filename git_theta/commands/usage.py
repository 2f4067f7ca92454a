"""Bytes of objects by who needs them: alone, together, here, on a remote, and for nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from git_theta.git.lfs import Lfs
from git_theta.git.remotes import find_remote
from git_theta.manifest import Manifest
from git_theta.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Usage:
    """The objects that ``names`` need: their bytes, and those that nothing else in the list needs.

    ``here`` is how many of the bytes are in this clone, ``there`` on the remote that was asked.
    What needs the same (branches of one commit) is listed together.
    """

    names: tuple[str, ...]
    objects: int
    size: int
    exclusive: int
    here: int
    there: int | None

    @property
    def shared(self) -> int:
        """Bytes that others need too."""
        return self.size - self.exclusive


@dataclass(frozen=True, slots=True)
class Report:
    """A row for each name, and all of them together.

    ``unneeded`` are the bytes here that none of them needs, ``unused`` those of frames that none of
    them reads, in objects that they need.
    """

    rows: tuple[Usage, ...]
    total: Usage
    unneeded: int
    unused: int


@dataclass(slots=True)
class Users:
    """Objects: their bytes, the rows that need them (as bits), and the frames that are read."""

    sizes: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _frames: set[tuple[str, int, int]] = field(default_factory=set)

    def read(self, manifest: Manifest) -> dict[str, int]:
        """Note the frames of a manifest; return its objects, oid to bytes."""
        self._frames.update((ref.oid, ref.offset, ref.length) for ref in manifest.refs())
        found = manifest.objects()
        self.sizes.update(found)
        return found

    def need(self, oids: Iterable[str], rows: int) -> None:
        """Note that the rows of these bits need objects."""
        for oid in oids:
            self.rows[oid] |= rows

    def report(
        self, workspace: Workspace, names: Sequence[tuple[str, ...]], remote: str | None
    ) -> Report:
        """Return the bytes of each row; ask ``remote``, if given, which objects it has."""
        store = workspace.store
        here = {oid for oid in self.sizes if store.has(oid)}
        there = self._on(workspace, remote) if remote else None
        rows = [
            self._usage(each, [oid for oid in self.sizes if self.rows[oid] >> n & 1], here, there)
            for n, each in enumerate(names)
        ]
        total = self._usage(("all",), list(self.sizes), here, there, everything=True)
        others = (store.size(oid) or 0 for oid in store.oids() if oid not in self.sizes)
        used = sum(length for _, _, length in self._frames)
        return Report(tuple(rows), total, sum(others), max(0, total.size - used))

    def _on(self, workspace: Workspace, name: str) -> set[str]:
        remote = find_remote(workspace.repo, name)
        return self.sizes.keys() - Lfs(workspace.repo).lacking(remote, self.sizes)

    def _usage(
        self,
        names: tuple[str, ...],
        oids: Sequence[str],
        here: set[str],
        there: set[str] | None,
        everything: bool = False,
    ) -> Usage:
        own = [oid for oid in oids if everything or self.rows[oid].bit_count() == 1]
        return Usage(
            names,
            len(oids),
            _total(self.sizes, oids),
            _total(self.sizes, own),
            _total(self.sizes, here.intersection(oids)),
            None if there is None else _total(self.sizes, there.intersection(oids)),
        )


def _total(sizes: Mapping[str, int], oids: Iterable[str]) -> int:
    return sum(sizes[oid] for oid in oids)
