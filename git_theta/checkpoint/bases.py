"""Chunks that are stored already: to reuse, or to encode new ones against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from git_theta.checkpoint import chunk_codec
from git_theta.checkpoint.chunk_codec import Base
from git_theta.checkpoint.chunking import SKELETON, RawChunk
from git_theta.checkpoint.parents import Chain, Parent, Parents
from git_theta.codec import estimate
from git_theta.core import registry
from git_theta.core.layout import Geometry, Layout
from git_theta.core.settings import Settings
from git_theta.errors import ThetaError
from git_theta.manifest import Chunk, Manifest
from git_theta.store import Index, Location, ObjectStore

# A link costs a read and a decode, so it must save this share of the bytes.
_GAIN_PER_LINK = 0.02
_SAMPLE = 64 << 10
_SAMPLES = 4


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
        self._index = index
        self._layout = layout
        self._parents = Parents(parents)
        self._max_depth = settings.max_depth
        self._max_cost = settings.max_cost

    def known(self, hash_: str) -> Chain | None:
        """Return a chain that is verified, here and whole, and decodes to content ``hash_``.

        The one that the closest parent uses where it can be, so that an unchanged tensor leaves
        its line in the manifest unchanged.
        """
        locations = self._locations(hash_)
        if not locations:
            return None
        preferred = self._parents.chain_of(hash_)
        if preferred and self._is_verified(preferred, locations) and self._use(preferred):
            return preferred
        chains = (self._resolve(location) for location in locations)
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
            return chunk_codec.decode_bases(self._store, chain)
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

    def _is_verified(self, chain: Chain, locations: Sequence[Location]) -> bool:
        for link, ref in enumerate(chain):
            found = next((row for row in locations if row.ref == ref), None)
            if found is None:
                return False
            if found.base is None:
                return link == len(chain) - 1
            locations = self._locations(found.base)
        return False

    def _resolve(self, location: Location) -> Chain | None:
        chain = [location.ref]
        while location.base is not None:
            below = self._locations(location.base)
            if not below or below[0].depth >= location.depth:
                return None
            location = below[0]
            chain.append(location.ref)
        return tuple(chain)

    def _locations(self, hash_: str) -> list[Location]:
        found = self._index.find(hash_)
        self._store.trust({row.ref.oid: row.stamp for row in found if row.stamp})
        return found

    def _use(self, chain: Chain) -> bool:
        return all(self._store.use(ref.oid, ref.size) for ref in chain)


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
