"""Chunks that are stored already, by their content.

It does without numpy, as each file is looked up that is only added again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from git_theta.checkpoint.parents import Chain, Parents
from git_theta.core.hashes import Ref
from git_theta.store import Index, Location, ObjectStore

Located = Mapping[str, Sequence[Location]]
"""By content hash, where the index says that it is stored."""


class StoredChunks:
    """Looks up chunks for one file that is being cleaned; safe for use by several threads."""

    def __init__(self, store: ObjectStore, index: Index, parents: Parents) -> None:
        self._store = store
        # A pack holds thousands of chunks: it is looked at once.
        self._usable: set[tuple[str, int]] = set()
        self._index = index
        self._parents = parents

    def locate(self, hashes: Iterable[str]) -> Located:
        """Return where the contents ``hashes`` are stored, and all that these are based on."""
        located: dict[str, Sequence[Location]] = {}
        wanted = set(hashes)
        while wanted:
            found = self._index.find_many(wanted)
            located.update({hash_: found.get(hash_, ()) for hash_ in wanted})
            rows = [row for places in found.values() for row in places]
            self._store.trust({row.ref.oid: row.stamp for row in rows if row.stamp})
            wanted = {row.base for row in rows if row.base} - located.keys()
        return located

    def known(self, hash_: str, located: Located) -> Chain | None:
        """Return a chain that is verified, here and whole, and decodes to content ``hash_``.

        The one that the closest parent uses where it can be, so that an unchanged tensor leaves
        its line in the manifest unchanged. ``located`` is what ``locate`` found.
        """
        if not located[hash_]:
            return None
        preferred = self._parents.chain_of(hash_)
        if preferred and _is_verified(preferred, hash_, located) and self.can_use(preferred):
            return preferred
        chains = (_resolve(location, located) for location in located[hash_])
        return next((chain for chain in chains if chain and self.can_use(chain)), None)

    def can_use(self, chain: Chain) -> bool:
        """Return whether the objects of ``chain`` are here and whole."""
        return all((ref.oid, ref.size) in self._usable or self._use_object(ref) for ref in chain)

    def _use_object(self, ref: Ref) -> bool:
        # Else every process would hash the objects of every base again.
        self._store.trust(self._index.stamps([ref.oid]))
        is_usable = self._store.use(ref.oid, ref.size)
        if is_usable:
            self._usable.add((ref.oid, ref.size))
        return is_usable


def _is_verified(chain: Chain, hash_: str, located: Located) -> bool:
    locations = located[hash_]
    for link, ref in enumerate(chain):
        found = next((row for row in locations if row.ref == ref), None)
        if found is None:
            return False
        if found.base is None:
            return link == len(chain) - 1
        locations = located[found.base]
    return False


def _resolve(location: Location, located: Located) -> Chain | None:
    chain = [location.ref]
    while location.base is not None:
        below = located[location.base]
        if not below or below[0].depth >= location.depth:
            return None
        location = below[0]
        chain.append(location.ref)
    return tuple(chain)
