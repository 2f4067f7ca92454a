"""Clean: turn a checkpoint into a manifest and objects.

Memory is bounded by the chunks in flight, whatever the size of the file: one thread walks the
file in order, the workers hash, encode and write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from git_theta import formats
from git_theta.checkpoint.chunking import (
    BATCH,
    SKELETON,
    RawChunk,
    SourceStream,
    Stream,
    raw_chunks,
)
from git_theta.checkpoint.context import StorageContext
from git_theta.checkpoint.parents import Chain, Parent, Parents
from git_theta.checkpoint.stored_chunks import StoredChunks
from git_theta.core.hashes import Ref, content_hash
from git_theta.core.layout import Buffer, Layout, Source
from git_theta.core.parallel import batches, in_order
from git_theta.manifest import Chunk, Manifest, TensorEntry
from git_theta.store import Location, PackWriter

if TYPE_CHECKING:
    from git_theta.checkpoint.bases import Bases
    from git_theta.checkpoint.chunk_encoder import Suggestion
    from git_theta.checkpoint.sketch import Sketch

# Bytes of a chunk that is stored without a base. A delta saves 10 % of 280 floats, hardly more than
# its base's place takes in the manifest; finding it for 20,000 of them took 30 s, storing them 2.
_LITTLE = 2048


class Cleaned(NamedTuple):
    """A manifest whose objects are stored, and what the user should know about the file."""

    manifest: Manifest
    warning: str | None


def clean(
    source: Source,
    name: str,
    storage: StorageContext,
    parents: Iterable[Parent | Manifest] = (),
    suggestions: Mapping[str, Suggestion] | None = None,
) -> Cleaned:
    """Store the file ``source``, called ``name``, and describe it; see ``store``."""
    layout, warning = formats.scan(source, name)
    storage.progress.start(f"storing {name}", source.size)
    manifest = store(SourceStream(source), layout, storage, parents, suggestions)
    return Cleaned(manifest, warning)


def store(
    stream: Stream,
    layout: Layout,
    storage: StorageContext,
    parents: Iterable[Parent | Manifest] = (),
    suggestions: Mapping[str, Suggestion] | None = None,
) -> Manifest:
    """Store every byte of ``stream``, cut as ``layout`` says, and describe it.

    ``parents`` are the manifests that tensors are compared with, the closest first;
    ``suggestions`` are encodings to try, by the name of the tensor. When this returns, every
    object is durable, and the manifest stands for the stream's exact bytes, whether or not the
    layout was theirs. When it raises, nothing refers to what was written.
    """
    chunks = _Chunks(layout, storage, Parents(parents), suggestions or {})
    recorder = _Recorder(storage)
    raw = raw_chunks(stream, layout, storage.settings.chunk_size)
    for outcomes in in_order(
        chunks.store,
        batches(raw, lambda item: len(item.data), BATCH),
        storage.settings.workers,
        small_results=True,
    ):
        for outcome in outcomes:
            recorder.record(outcome)
            storage.progress.advance(outcome.length)
    recorder.finish()
    storage.progress.finish()
    return describe(layout, recorder.size, recorder.chunks_of)


class _Outcome(NamedTuple):
    """What became of a chunk: known already, written as an object, or a frame to be packed."""

    owner: int
    hash: str
    length: int
    stored: tuple[Ref, ...] | Ref | list[Buffer]
    base: str | None = None
    base_chain: tuple[Ref, ...] = ()
    sketch: Sketch = ()


class _Chunks:
    """Stores the chunks of one file that are not here yet; safe for use by several threads."""

    def __init__(
        self,
        layout: Layout,
        storage: StorageContext,
        parents: Parents,
        suggestions: Mapping[str, Suggestion],
    ) -> None:
        self._layout = layout
        self._storage = storage
        self._parents = parents
        names = (span.name for span in layout.spans)
        self._suggestions = {
            owner: suggestions[name] for owner, name in enumerate(names) if name in suggestions
        }
        self._stored = StoredChunks(storage.store, storage.index, parents)

    @cached_property
    def _bases(self) -> Bases:
        from git_theta.checkpoint.bases import Bases  # imports numpy, as below

        return Bases(self._stored, self._parents, self._layout, self._storage)

    def store(self, batch: list[RawChunk]) -> list[_Outcome]:
        hashes = [content_hash(raw.data) for raw in batch]
        located = self._stored.locate(hashes)
        return [
            self._store(raw, hash_, self._stored.known(hash_, located))
            for raw, hash_ in zip(batch, hashes, strict=True)
        ]

    def _store(self, raw: RawChunk, hash_: str, known: Chain | None) -> _Outcome:
        if known:
            return _Outcome(raw.owner, hash_, len(raw.data), known)
        return self._store_new(raw, hash_)

    def _store_new(self, raw: RawChunk, hash_: str) -> _Outcome:
        # Imported here: with numpy it takes 70 ms, which a file that is here need not pay.
        from git_theta.checkpoint import chunk_encoder
        from git_theta.checkpoint.sketch import sketch

        owner, length = raw.owner, len(raw.data)
        suggestion = self._suggestions.get(owner)
        similar = sketch(raw.data, raw.geometry.dtype) if owner != SKELETON else ()
        needs_base = length > _LITTLE or suggestion
        base = self._bases.find(raw, hash_, similar) if needs_base else None
        encoded = chunk_encoder.encode(raw.data, hash_, raw.geometry, base, suggestion)
        small = sum(map(len, encoded.frame)) < self._storage.settings.packing[0]
        stored: Ref | list[Buffer]
        if small:
            # Waiting for its pack, a frame of a dozen small arrays takes 3 KB, this what it has.
            stored = [b"".join(encoded.frame)]
        else:
            stored = self._storage.store.write_behind(encoded.frame)
        return _Outcome(owner, hash_, length, stored, encoded.base, encoded.base_chain, similar)


class _Fresh(NamedTuple):
    """A chunk that the index does not know yet; its frame may still wait for its pack."""

    length: int
    frame: Future[Ref]
    base: str | None
    base_chain: tuple[Ref, ...]
    sketch: Sketch


class _Recorder:
    """Gathers outcomes in file order, so that packs and manifests do not depend on threads."""

    def __init__(self, storage: StorageContext) -> None:
        self._storage = storage
        self._packs = PackWriter(storage.store, *storage.settings.packing)
        self._chains: dict[str, tuple[Ref, ...]] = {}
        self._fresh: dict[str, _Fresh] = {}
        self._placed: dict[int, list[tuple[int, str]]] = {}
        self.size = 0

    def record(self, outcome: _Outcome) -> None:
        """Take the next chunk of the file."""
        self.size += outcome.length
        self._placed.setdefault(outcome.owner, []).append((outcome.length, outcome.hash))
        if outcome.hash in self._chains or outcome.hash in self._fresh:
            return  # a tied tensor: the first one's frame serves
        if isinstance(outcome.stored, (Ref, list)):
            frame = self._frame(outcome.stored)
            self._fresh[outcome.hash] = _Fresh(
                outcome.length, frame, outcome.base, outcome.base_chain, outcome.sketch
            )
        else:
            self._chains[outcome.hash] = outcome.stored

    def _frame(self, stored: Ref | list[Buffer]) -> Future[Ref]:
        if isinstance(stored, list):
            return self._packs.add(stored)
        written: Future[Ref] = Future()
        written.set_result(stored)
        return written

    def finish(self) -> None:
        """Close the last pack and let the index know what is now durable."""
        self._packs.flush()
        reused = [*self._chains.values(), *(fresh.base_chain for fresh in self._fresh.values())]
        self._storage.store.touch({ref.oid for chain in reused for ref in chain})
        self._storage.store.sync()
        rows = []
        for hash_, fresh in self._fresh.items():
            ref = fresh.frame.result()
            self._chains[hash_] = (ref, *fresh.base_chain)
            depth = len(fresh.base_chain)
            rows.append(Location(hash_, fresh.length, ref, fresh.base, depth, sketch=fresh.sketch))
        oids = {ref.oid for chain in self._chains.values() for ref in chain}
        self._storage.index.add(rows, self._storage.store.stamps(oids))

    def chunks_of(self, owner: int) -> tuple[Chunk, ...]:
        return tuple(
            Chunk(length, hash_, self._chains[hash_])
            for length, hash_ in self._placed.get(owner, ())
        )


def describe(layout: Layout, size: int, chunks_of: Callable[[int], tuple[Chunk, ...]]) -> Manifest:
    """Return the manifest of a file of ``size`` bytes, given the chunks of each span by number."""
    tensors, position = [], 0
    for owner, span in enumerate(layout.spans):
        tensors.append(
            TensorEntry(
                name=span.name,
                dtype=span.dtype,
                shape=span.shape,
                gap=span.start - position,
                chunks=chunks_of(owner),
                offset=span.offset,
                strides=span.strides,
            )
        )
        position = span.start + span.length
    skeleton = chunks_of(SKELETON)
    return Manifest(layout.format, size, skeleton, tuple(tensors), layout.aliases)
