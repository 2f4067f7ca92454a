"""Chunks that are stored already, to encode new ones against."""

from __future__ import annotations

from git_theta.checkpoint import chunk_decoder
from git_theta.checkpoint.chunk_decoder import Base, turned
from git_theta.checkpoint.chunking import SKELETON, RawChunk
from git_theta.checkpoint.closeness import closer, cost, is_close
from git_theta.checkpoint.context import StorageContext
from git_theta.checkpoint.parents import Chain, Parents
from git_theta.checkpoint.sketch import Sketch, resembles, sketch
from git_theta.checkpoint.stored_chunks import StoredChunks
from git_theta.checkpoint.transposition import is_matrix
from git_theta.core.layout import Layout
from git_theta.errors import ThetaError
from git_theta.manifest import Chunk
from git_theta.store import ReadAhead

# By the sketch; a chunk that is none of ours has none, and each costs a decode.
_CANDIDATES = 2


class Bases:
    """Finds bases for the chunks of one file, cut as ``layout`` says; safe for several threads."""

    def __init__(
        self,
        stored: StoredChunks,
        parents: Parents,
        layout: Layout,
        storage: StorageContext,
    ) -> None:
        self._stored = stored
        self._parents = parents
        self._layout = layout
        self._index = storage.index
        self._frames = ReadAhead(storage.store)
        self._max_depth = storage.settings.max_depth
        self._max_cost = storage.settings.max_cost

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
            located = self._stored.locate([content])
            chain = self._stored.known(content, located) if content != hash_ else None
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
            if not self._stored.can_use(chain):
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
