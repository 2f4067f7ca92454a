"""Chunks that are stored already: to reuse, or to encode new ones against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from git_theta.checkpoint import chunk_decoder
from git_theta.checkpoint.chunk_decoder import Base, turned
from git_theta.checkpoint.chunking import SKELETON, RawChunk
from git_theta.checkpoint.closeness import closer, cost, is_close
from git_theta.checkpoint.parents import Chain, Parent, Parents
from git_theta.checkpoint.sketch import Sketch, resembles, sketch
from git_theta.checkpoint.transposition import is_matrix
from git_theta.core.hashes import Ref
from git_theta.core.layout import Layout
from git_theta.core.settings import Settings
from git_theta.errors import ThetaError
from git_theta.manifest import Chunk, Manifest
from git_theta.store import Index, Location, ObjectStore, ReadAhead

# By the sketch; a chunk that is none of ours has none, and each costs a decode.
_CANDIDATES = 2

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

    def find(self, raw: RawChunk, hash_: str, numbers: Sketch) -> Base | None:
        """Return the chunk that is here to encode ``raw`` against, if there is one.

        The same chunk of the closest parent that has the tensor; where that has no number of the
        sketch, ``numbers``, in common with it, or none has the tensor, whichever stored chunk
        has, as it is or transposed. Or what it is a difference to in the end, where this is nearly
        as good a base: fine-tunes of one model stay close to it, and a shorter chain is faster to
        decode. A chunk whose object was
        lost or damaged is encoded as it was: that may give the same object, which older commits
        need too.
        """
        chunk, named = self._same_tensor(raw), None
        if chunk and chunk.hash == hash_:
            found = self._decode(chunk.chain[1:]) if len(chunk.chain) > 1 else None
            return found and (_closest(found[1], found[1], raw) or found[1])
        if chunk and (found := self._decode(self._below(chunk.chain, chunk.length))):
            named = closer(*found, raw)
        if named and resembles(named.data.data, raw.geometry.dtype, numbers):
            return named
        return self._similar(raw, hash_, numbers, named) if numbers else named

    def _similar(
        self, raw: RawChunk, hash_: str, numbers: Sketch, named: Base | None
    ) -> Base | None:
        """Return the closest stored chunk by its sketch, or ``named``, if that is closer."""
        for content in self._index.similar((*numbers, *_transposed(raw)), _CANDIDATES):
            located = self.locate([content])
            chain = self.known(content, located) if content != hash_ else None
            if chain and (found := self._decode(self._below(chain, len(raw.data)))):
                base = _closest(*found, raw)
                if base and not (named and cost(named, raw) <= cost(base, raw)):
                    return base
        return named

    def _below(self, chain: Chain, length: int) -> Chain:
        # Without a chain below it, any content is its own bottom.
        cost = sum(ref.length for ref in chain)
        may_grow = len(chain) < self._max_depth and cost < self._max_cost * length
        return chain if may_grow else chain[-1:]

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

    def _same_tensor(self, raw: RawChunk) -> Chunk | None:
        """Return the chunk that has the place of ``raw`` in the closest parent."""
        if raw.owner == SKELETON:
            nearest = self._parents.nearest()
            chunks = nearest.manifest.skeleton if nearest else ()
        else:
            entry = self._parents.entry_like(self._layout.spans[raw.owner])
            chunks = entry.chunks if entry else ()
        return chunks[raw.number] if raw.number < len(chunks) else None

    def _use(self, chain: Chain) -> bool:
        return all((ref.oid, ref.size) in self._usable or self._use_object(ref) for ref in chain)

    def _use_object(self, ref: Ref) -> bool:
        # Else every process would hash the objects of every base again.
        self._store.trust(self._index.stamps([ref.oid]))
        is_usable = self._store.use(ref.oid, ref.size)
        if is_usable:
            self._usable.add((ref.oid, ref.size))
        return is_usable


def _transposed(raw: RawChunk) -> Sketch:
    """Return the sketch of the transposed chunk, of a whole matrix."""
    if not is_matrix(raw.geometry, len(raw.data)):
        return ()
    return sketch(raw.data, raw.geometry.dtype, raw.geometry.shape[0])


def _closest(bottom: Base, top: Base, raw: RawChunk) -> Base | None:
    """Return the closer end of a chain, as it is or transposed; ``None`` where it is not close."""
    base = closer(bottom, top, raw)
    if is_close(base, raw):
        return base
    ends = (top,) if bottom is top else (bottom, top)
    found = [end for each in ends if (end := turned(each, raw.geometry, len(raw.data)))]
    base = closer(found[0], found[-1], raw) if found else base
    return base if found and is_close(base, raw) else None


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
