"""Chunks that are stored already: to reuse, or to encode new ones against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from git_theta.checkpoint import chunk_decoder
from git_theta.checkpoint.chunk_decoder import Base
from git_theta.checkpoint.chunking import SKELETON, RawChunk
from git_theta.checkpoint.parents import Chain, Parent, Parents
from git_theta.codec import estimate
from git_theta.core import registry
from git_theta.core.hashes import Ref
from git_theta.core.layout import Geometry, Layout
from git_theta.core.settings import Settings
from git_theta.errors import ThetaError
from git_theta.manifest import Chunk, Manifest
from git_theta.store import Index, Location, ObjectStore, ReadAhead

# A link costs a read and a decode, so it must save this share of the bytes.
_GAIN_PER_LINK = 0.02
_SAMPLE = 64 << 10
_SAMPLES = 4

Located = Mapping[str, Sequence[Location]]
"""By content hash, where the index says that it is stored."""


class Bases:
    """Looks up chunks for one file that is being cleaned; safe for use by several threads.

    ``parents`` are manifests that its tensors may be in, the closest first; they are drawn only
    when a tensor is not found in those before.
    """

    def __init__(
        self,
        store: ObjectStore,
        index: Index,
        layout: Layout,
        parents: Iterable[Parent | Manifest],
        settings: Settings,
    ) -> None:
        self._store = store
        self._frames = ReadAhead(store)
        # A pack holds thousands of chunks: it is looked at once.
        self._usable: set[tuple[str, int]] = set()
        self._index = index
        self._layout = layout
        self._parents = Parents(parents)
        self._max_depth = settings.max_depth
        self._max_cost = settings.max_cost

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
        if preferred and _is_verified(preferred, hash_, located) and self._use(preferred):
            return preferred
        chains = (_resolve(location, located) for location in located[hash_])
        return next((chain for chain in chains if chain and self._use(chain)), None)

    def find(self, raw: RawChunk, hash_: str) -> Base | None:
        """Return what the same chunk is in the closest parent that has the tensor, if it is here.

        Or what that one is a difference to in the end, where this is nearly as good a base: fine-
        tunes of one model stay close to it, and a shorter chain is faster to decode. A chunk
        whose object was lost or damaged is encoded as it was: that may give the same object, which
        older commits need too.
        """
        for chunk in self._candidates(raw):
            same = chunk.hash == hash_
            if same and len(chunk.chain) == 1:
                return None
            if found := self._decode(self._below(chunk, same)):
                bottom, top = found
                return bottom if not same and _is_as_good(bottom, top, raw) else top
        return None

    def _below(self, chunk: Chunk, same: bool) -> Chain:
        if same:
            return chunk.chain[1:]
        # Without a chain below it, any content is its own bottom.
        return chunk.chain if self._may_grow(chunk) else chunk.chain[-1:]

    def _decode(self, chain: Chain) -> tuple[Base, Base] | None:
        """Return the bottom and the top of ``chain``; ``None``: store the chunk without.

        A base may be damaged, or in an encoding that is not installed here.
        """
        try:
            if not self._use(chain):
                return None
            return chunk_decoder.decode_bases(self._frames, chain)
        except ThetaError:
            return None

    def _may_grow(self, chunk: Chunk) -> bool:
        cost = sum(ref.length for ref in chunk.chain)
        return len(chunk.chain) < self._max_depth and cost < self._max_cost * chunk.length

    def _candidates(self, raw: RawChunk) -> Iterator[Chunk]:
        if raw.owner == SKELETON:
            nearest = self._parents.nearest()
            pieces = [nearest.manifest.skeleton] if nearest else []
        else:
            entry = self._parents.entry_like(self._layout.spans[raw.owner])
            pieces = [entry.chunks] if entry else []
        for piece in pieces:
            if raw.number < len(piece):
                yield piece[raw.number]

    def _use(self, chain: Chain) -> bool:
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


def _is_as_good(bottom: Base, top: Base, raw: RawChunk) -> bool:
    """Return whether a sample differs from the bottom of a chain hardly more than from its top."""
    if bottom is top:
        return True
    links = len(top.chain) - len(bottom.chain)
    return _cost(bottom, raw) * (1 - _GAIN_PER_LINK * links) <= _cost(top, raw)


def _cost(base: Base, raw: RawChunk) -> int:
    length = min(base.data.size, len(raw.data))
    # Whole words, wherever a sample begins.
    starts = range(0, length, max(_SAMPLE, length // _SAMPLES) & ~7)
    places = [slice(start, min(start + _SAMPLE, length)) for start in starts]
    sample = np.frombuffer(raw.data, np.uint8)
    now, before = (np.concatenate([each[p] for p in places]) for each in (sample, base.data))
    encoded = registry.encoding_named("delta").encode(now, before, Geometry(raw.geometry.dtype))
    return estimate(encoded.parts) if encoded else now.size
