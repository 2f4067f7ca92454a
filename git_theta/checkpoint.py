"""Clean and smudge, side by side: a checkpoint into a manifest and objects, and back.

The one module that knows every stage. Memory is bounded by the chunks in flight, whatever the
size of the file: one thread walks the file in order, the workers hash, encode, decode and write.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from blake3 import blake3

from git_theta import chunks, formats
from git_theta.bases import Bases
from git_theta.errors import CorruptObjectError
from git_theta.ids import Ref, content_hash
from git_theta.manifest import AliasEntry, Chunk, Manifest, TensorEntry
from git_theta.pieces import (
    SKELETON,
    Placement,
    RawChunk,
    SourceStream,
    Stream,
    placements,
    raw_chunks,
)
from git_theta.pipeline import batches, in_order
from git_theta.progress import Progress, Silent
from git_theta.settings import Settings
from git_theta.store import Index, Location, ObjectStore, PackWriter
from git_theta.tensor import Buffer, Layout, Source

# Small chunks travel through the thread pool together: a task costs about 50 us, a bias 5.
_BATCH = 4 << 20


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where objects lie, what is known of them, and how to work."""

    store: ObjectStore
    index: Index
    settings: Settings = field(default_factory=Settings)
    progress: Progress = field(default_factory=Silent)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A manifest whose objects are stored, and what the user should know about the file."""

    manifest: Manifest
    warning: str | None


def clean(
    source: Source,
    name: str,
    workshop: Workshop,
    parents: Iterable[Manifest] = (),
    suggestions: Mapping[str, chunks.Suggestion] | None = None,
) -> Cleaned:
    """Store the file ``source``, called ``name``, and describe it; see ``store``."""
    layout, warning = formats.scan(source, name)
    workshop.progress.start(f"storing {name}", source.size)
    described = store(SourceStream(source), layout, workshop, parents, suggestions)
    return Cleaned(described, warning)


def store(
    stream: Stream,
    layout: Layout,
    workshop: Workshop,
    parents: Iterable[Manifest] = (),
    suggestions: Mapping[str, chunks.Suggestion] | None = None,
) -> Manifest:
    """Store every byte of ``stream``, cut as ``layout`` says, and describe it.

    ``parents`` are the manifests that tensors are compared with, the closest first;
    ``suggestions`` are encodings to try, by the name of the tensor. When this returns, every
    object is durable, and the manifest stands for the stream's exact bytes, whether or not the
    layout was theirs. When it raises, nothing refers to what was written.
    """
    settings = workshop.settings
    bases = Bases(workshop.store, workshop.index, layout, parents, settings)
    known = _by_owner(layout, suggestions or {})
    recorder = _Recorder(workshop)
    digest = blake3()
    raw = _hashed(raw_chunks(stream, layout, settings.chunk_size), digest)
    for outcomes in in_order(
        lambda batch: [_store_chunk(item, bases, workshop, known) for item in batch],
        batches(raw, lambda item: len(item.data), _BATCH),
        settings.workers,
    ):
        for outcome in outcomes:
            recorder.record(outcome)
            workshop.progress.advance(outcome.length)
    recorder.finish()
    workshop.progress.finish()
    return _describe(layout, digest.hexdigest(), recorder)


def smudge(manifest: Manifest, workshop: Workshop, name: str = "") -> Iterator[memoryview]:
    """The file that ``manifest`` describes, in order, piece by piece, every chunk verified.

    Raises ``MissingObjectError`` or ``CorruptObjectError``; pieces given before that are right,
    but the caller must discard them.
    """
    digest = blake3()
    reader = _ChunkReader(workshop, manifest)
    workshop.progress.start(f"restoring {name}", manifest.size)
    groups = batches(placements(manifest), lambda place: place.stop - place.start, _BATCH)
    for pieces in in_order(reader.read, groups, workshop.settings.workers):
        for piece in pieces:
            digest.update(piece)
            workshop.progress.advance(piece.nbytes)
            yield piece
    if digest.hexdigest() != manifest.hash:
        raise CorruptObjectError(
            "the rebuilt file does not have the hash that its manifest names", path=name
        )
    reader.remember()
    workshop.progress.finish()


# --- clean ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of a chunk: known already, written as an object, or a frame to be packed."""

    owner: int
    hash: str
    length: int
    stored: tuple[Ref, ...] | Ref | list[Buffer]
    base: str | None = None
    base_chain: tuple[Ref, ...] = ()


def _hashed(pieces: Iterable[RawChunk | Buffer], digest: blake3) -> Iterator[RawChunk]:
    for piece in pieces:
        if isinstance(piece, RawChunk):
            yield piece
        else:
            digest.update(piece)


def _by_owner(
    layout: Layout, suggestions: Mapping[str, chunks.Suggestion]
) -> dict[int, chunks.Suggestion]:
    names = (span.name for span in layout.spans)
    return {owner: suggestions[name] for owner, name in enumerate(names) if name in suggestions}


def _store_chunk(
    raw: RawChunk, bases: Bases, workshop: Workshop, suggestions: Mapping[int, chunks.Suggestion]
) -> _Outcome:
    owner, hash_, length = raw.owner, content_hash(raw.data), len(raw.data)
    if chain := bases.known(hash_):
        return _Outcome(owner, hash_, length, chain)
    suggestion = suggestions.get(owner)
    encoded = chunks.encode(raw.data, hash_, raw.geometry, bases.find(raw), suggestion)
    small = sum(map(len, encoded.frame)) < workshop.settings.pack_limit
    stored = encoded.frame if small else workshop.store.write(encoded.frame)
    return _Outcome(owner, hash_, length, stored, encoded.base, encoded.base_chain)


@dataclass(frozen=True, slots=True)
class _Fresh:
    """A chunk that the index does not know yet; its frame may still wait for its pack."""

    length: int
    frame: Future[Ref]
    base: str | None
    base_chain: tuple[Ref, ...]


class _Recorder:
    """Gathers outcomes in file order, so that packs and manifests do not depend on threads."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        settings = workshop.settings
        self._packs = PackWriter(workshop.store, settings.pack_limit, settings.pack_size)
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
        if isinstance(outcome.stored, tuple):
            self._chains[outcome.hash] = outcome.stored
        else:
            frame = self._frame(outcome.stored)
            self._fresh[outcome.hash] = _Fresh(
                outcome.length, frame, outcome.base, outcome.base_chain
            )

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
        self._workshop.store.freshen({ref.oid for chain in reused for ref in chain})
        self._workshop.store.sync()
        rows = []
        for hash_, fresh in self._fresh.items():
            ref = fresh.frame.result()
            self._chains[hash_] = (ref, *fresh.base_chain)
            rows.append(Location(hash_, fresh.length, ref, fresh.base, len(fresh.base_chain)))
        self._workshop.index.add(rows)

    def chunks_of(self, owner: int) -> tuple[Chunk, ...]:
        return tuple(
            Chunk(length, hash_, self._chains[hash_])
            for length, hash_ in self._placed.get(owner, ())
        )


def _describe(layout: Layout, file_hash: str, recorder: _Recorder) -> Manifest:
    tensors, position = [], 0
    for owner, span in enumerate(layout.spans):
        tensors.append(
            TensorEntry(
                name=span.name,
                dtype=span.dtype,
                shape=span.shape,
                gap=span.start - position,
                chunks=recorder.chunks_of(owner),
                offset=span.offset,
                strides=span.strides,
            )
        )
        position = span.start + span.length
    aliases = tuple(
        AliasEntry(a.name, a.dtype, a.shape, a.of, a.offset, a.strides) for a in layout.aliases
    )
    skeleton = recorder.chunks_of(SKELETON)
    size = recorder.size
    return Manifest(layout.format, size, file_hash, skeleton, tuple(tensors), aliases)


# --- smudge --------------------------------------------------------------------------------------


class _ChunkReader:
    """Decodes chunks; skeleton chunks, which serve many placements, are kept a while."""

    def __init__(self, workshop: Workshop, manifest: Manifest) -> None:
        self._workshop = workshop
        self._skeleton = {chunk.hash for chunk in manifest.skeleton}
        self._kept: OrderedDict[str, memoryview] = OrderedDict()
        self._lock = threading.Lock()
        self._locations: dict[tuple[str, Ref], Location] = {}

    def read(self, batch: list[Placement]) -> list[memoryview]:
        """The bytes of each placement."""
        return [self._chunk(place.chunk)[place.start : place.stop] for place in batch]

    def _chunk(self, chunk: Chunk) -> memoryview:
        with self._lock:
            if chunk.hash in self._kept:
                return self._kept[chunk.hash]
        decoded = chunks.decode(self._workshop.store, chunk)
        data = decoded.data.data
        with self._lock:
            self._locations.update({(row.hash, row.ref): row for row in decoded.locations})
            if chunk.hash in self._skeleton:
                self._kept[chunk.hash] = data
                if len(self._kept) > 2:
                    self._kept.popitem(last=False)
        return data

    def remember(self) -> None:
        """Let the index know what was verified, so that adding the same bytes costs nothing."""
        self._workshop.index.add(self._locations.values())
