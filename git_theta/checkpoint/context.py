"""The storage of a repository, as clean, smudge and merges are given it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from git_theta.checkpoint.limits import Allowance
from git_theta.core.parallel import batches, in_order
from git_theta.core.progress import NullProgress, Progress
from git_theta.core.settings import Settings
from git_theta.manifest import Chunk
from git_theta.store import Index, ObjectStore

_BATCH = 32 << 20


@dataclass(frozen=True, slots=True)
class StorageContext:
    """Objects, the index of them, and the settings and progress of the command at work."""

    store: ObjectStore
    index: Index
    settings: Settings = field(default_factory=Settings)
    progress: Progress = field(default_factory=NullProgress)
    allowance: Allowance = field(default_factory=Allowance)

    def charge(self, chunks: Iterable[Chunk], times: int = 1) -> None:
        """Account for chunks that are about to be decoded, so many ``times``.

        Raises ``LimitError`` where they are far more than what is stored of them.
        """
        self.allowance.charge(chunks, self.store.size, self.settings.expand_limit, times)

    def charge_bases(self, chunk: Chunk, expanded: int) -> None:
        """Account for bases that were longer than their chunk, which no manifest tells.

        ``expanded`` is how many raw bytes all links of the chunk's chain have.
        """
        longer = expanded - chunk.length * len(chunk.chain)
        if longer > 0:
            self.allowance.spend(longer, self.settings.expand_limit)

    def unsound(self, objects: Mapping[str, int]) -> dict[str, int]:
        """Return those of ``objects`` (oid to bytes) that are not here, or not whole.

        Each object is hashed once, and again when its file was changed; the index keeps that.
        """
        known = self.index.stamps(objects)
        self.store.trust(known)
        groups = batches(objects.items(), lambda item: item[1], _BATCH)
        checked = in_order(self._unsound, groups, self.settings.workers, small_results=True)
        found = {oid: size for group in checked for oid, size in group}
        now = self.store.stamps(objects)
        self.index.add([], {oid: stamp for oid, stamp in now.items() if known.get(oid) != stamp})
        return found

    def _unsound(self, group: list[tuple[str, int]]) -> list[tuple[str, int]]:
        return [(oid, size) for oid, size in group if not self.store.is_sound(oid, size)]
