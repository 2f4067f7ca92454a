"""One chunk at a time: the encoding that costs least, and back to the exact bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from git_theta.checkpoint.limits import is_affordable
from git_theta.codec import MAX_RAW, Frame, decode_frame, encode_frame, estimate, parts_limit
from git_theta.core import registry
from git_theta.core.dtypes import dtype
from git_theta.core.hashes import Ref, content_hash
from git_theta.core.layout import Buffer, Encoded, Geometry
from git_theta.core.messages import short_id
from git_theta.core.registry import Bytes, ComparesWhileDecoding, Encoding
from git_theta.errors import CorruptObjectError, MissingObjectError, UnsupportedVersionError
from git_theta.manifest import Chunk
from git_theta.store import Location

# A chain costs a decode and a read per link, so a base must save at least this share of the bytes
# for every link that it adds.
_GAIN_PER_LINK = 0.02

# Weights resemble each other all over a tensor, so that an eighth of the usual sample does.
_WEIGHTS_BLOCKS = 8

# Of the raw bytes: what an encoding brings a chunk to so far is not worth further trials, which
# take longer. It mostly is sparse, tried first, for a step that changed one weight in 150.
_ENOUGH = 1 / 200

# Below so many raw bytes, looking for factors takes twice as long as all else, and saves little.
_SMALL = 16 << 10
_CHEAP = ("sparse", "delta")

# Bytes of a frame: its parts as they are, and headers.
_LONGEST = parts_limit(MAX_RAW) + (1 << 20)


class Frames(Protocol):
    """Where frames are read, such as an ``ObjectStore``."""

    def read(self, ref: Ref) -> memoryview:
        """Return the bytes of ``ref``; see ``ObjectStore.read``."""
        ...


@dataclass(frozen=True, slots=True)
class Base:
    """Raw bytes that a chunk may be encoded against."""

    hash: str
    data: Bytes
    chain: tuple[Ref, ...]


@dataclass(frozen=True, slots=True)
class EncodedChunk:
    """A chunk as a frame, ready to be stored, with the hash and the chain of its base."""

    frame: list[Buffer]
    base: str | None
    base_chain: tuple[Ref, ...]


class Suggestion(Protocol):
    """An encoding of a chunk that is known beforehand, such as an adapter's own factors.

    ``encoding`` is the name of the encoding whose frames ``encode`` makes, ``None`` for none.
    """

    @property
    def encoding(self) -> str | None:
        """Name of the encoding."""
        ...

    def encode(self, raw: Bytes, base: Bytes, geometry: Geometry) -> Encoded | None:
        """Return the chunk ``raw``, or ``None`` where the suggestion does not suit it."""
        ...


def encode(
    data: Buffer,
    hash_: str,
    geometry: Geometry,
    base: Base | None,
    suggestion: Suggestion | None = None,
) -> EncodedChunk:
    """Return the chunk ``data``, of content hash ``hash_``, in the encoding that costs least."""
    raw = np.frombuffer(data, np.uint8)
    encoding, encoded = _choose(raw, geometry, base, suggestion)
    made = _framed(encoding, encoded, hash_, raw.size, geometry, base)
    stored = sum(memoryview(buffer).nbytes for buffer in made.frame)
    if not _is_readable(encoding, encoded, raw.size, stored):
        encoding, encoded = _full(raw, geometry)
        made = _framed(encoding, encoded, hash_, raw.size, geometry, None)
    return made


def _framed(
    encoding: Encoding,
    encoded: Encoded,
    hash_: str,
    length: int,
    geometry: Geometry,
    base: Base | None,
) -> EncodedChunk:
    if not encoding.needs_base:
        base = None
    frame = Frame(
        encoding=encoding.number,
        dtype=geometry.dtype.name,
        raw_length=length,
        content=hash_,
        base=base.hash if base else None,
        encoded=encoded,
    )
    return EncodedChunk(encode_frame(frame), frame.base, base.chain if base else ())


def _is_readable(encoding: Encoding, encoded: Encoded, length: int, stored: int) -> bool:
    """Return whether the frame is within the limits that every reader holds to."""
    total = sum(part.nbytes for part in encoded.parts)
    return total <= parts_limit(length) and is_affordable(encoding, encoded, length, stored)


def _full(raw: Bytes, geometry: Geometry) -> tuple[Encoding, Encoded]:
    full = registry.encoding_named("full")
    plain = full.encode(raw, None, geometry)
    assert plain is not None
    return full, plain


def _choose(
    raw: Bytes, geometry: Geometry, base: Base | None, suggestion: Suggestion | None
) -> tuple[Encoding, Encoded]:
    full, plain = _full(raw, geometry)
    if base is None:
        return full, plain
    # A base must earn its place in the chain.
    most = estimate(plain.parts, _WEIGHTS_BLOCKS) * (1 - _GAIN_PER_LINK * len(base.chain))
    found = list(_against_a_base(raw, geometry, base.data, suggestion))
    for cost, encoding, encoded in sorted(found, key=lambda each: each[0]):
        if cost < most and _is_exact(encoding, encoded, raw, base.data, geometry):
            return encoding, encoded
    return full, plain


def _against_a_base(
    raw: Bytes, geometry: Geometry, base: Bytes, suggestion: Suggestion | None
) -> Iterator[tuple[int, Encoding, Encoded]]:
    """Yield encodings that apply, and what each costs in bytes, until one takes next to nothing."""
    if suggestion and suggestion.encoding and (known := suggestion.encode(raw, base, geometry)):
        yield _cost(known), registry.encoding_named(suggestion.encoding), known
    for encoding in _worth_trying(raw.size):
        if encoding.needs_base and (encoded := encoding.encode(raw, base, geometry)):
            cost = _cost(encoded)
            yield cost, encoding, encoded
            if cost < _ENOUGH * raw.size:
                break


def _worth_trying(length: int) -> Iterable[Encoding]:
    return map(registry.encoding_named, _CHEAP) if length < _SMALL else registry.encodings()


def _cost(encoded: Encoded) -> int:
    return len(encoded.params) + estimate(encoded.parts)


def _is_exact(
    encoding: Encoding, encoded: Encoded, raw: Bytes, base: Bytes, geometry: Geometry
) -> bool:
    if isinstance(encoding, ComparesWhileDecoding):
        return encoding.is_exact(encoded, base, Geometry(geometry.dtype), raw)
    decoded = encoding.decode(encoded, base, Geometry(geometry.dtype), raw.size)
    # Eight bytes at a time: numpy makes an array of as many truth values as it compares.
    words = raw.size & ~7
    return np.array_equal(
        decoded[:words].view(np.uint64), raw[:words].view(np.uint64)
    ) and np.array_equal(decoded[words:], raw[words:])


Chain = tuple[Ref, ...]
Link = tuple[Bytes, Location]


@dataclass(frozen=True, slots=True)
class DecodedChunk:
    """A chunk's raw bytes, and where each link of its chain was found to be what it claims."""

    data: Bytes
    locations: tuple[Location, ...]


def decode(store: Frames, chunk: Chunk) -> DecodedChunk:
    """Rebuild a chunk from its chain, verifying every link.

    Raises ``MissingObjectError``, ``CorruptObjectError`` (naming the object at fault) or
    ``UnsupportedVersionError``.
    """
    return _decode(store, chunk, {}, set())


def decode_each(store: Frames, wanted: Sequence[Chunk]) -> Iterator[DecodedChunk]:
    """Yield several chunks in turn; what their chains have in common is decoded once.

    Fine-tunes of one model are differences to the same base.
    """
    counts = Counter(rest for chunk in wanted for rest in _lower_parts(chunk.chain))
    shared = {rest for rest, count in counts.items() if count > 1}
    known: dict[Chain, Link] = {}
    return (_decode(store, chunk, known, shared) for chunk in wanted)


def _lower_parts(chain: Chain) -> Iterator[Chain]:
    return (chain[place:] for place in range(len(chain)))


def _decode(
    store: Frames, chunk: Chunk, known: dict[Chain, Link], shared: Set[Chain]
) -> DecodedChunk:
    locations = []
    for link in _links(store, chunk.chain, known, shared):
        data, location = link
        locations.append(location)
    if location.hash != chunk.hash or data.size != chunk.length:
        raise _corrupt(chunk.chain[0], "it holds other content than the manifest names")
    return DecodedChunk(data, tuple(locations))


def decode_links(store: Frames, chain: Chain) -> Iterator[Link]:
    """Yield the content of each link of ``chain``, from the bottom up, verified."""
    return _links(store, chain, {}, set())


def decode_bases(store: Frames, chain: Chain) -> tuple[Base, Base]:
    """Return what lies at the bottom and at the top of ``chain``, to encode against."""
    bottom = top = None
    for data, location in _links(store, chain, {}, set()):
        top = Base(location.hash, data, chain[-1 - location.depth :])
        bottom = bottom or top
    assert bottom is not None  # a chain has a link: the manifest says so
    assert top is not None
    return bottom, top


def _links(
    store: Frames, chain: Chain, known: dict[Chain, Link], shared: Set[Chain]
) -> Iterator[Link]:
    """Yield the content of each link of a chain, from the bottom up, verified.

    Those of ``shared`` parts of chains are looked up in ``known``, and kept there.
    """
    link: Link | None = None
    for depth, ref in enumerate(reversed(chain)):
        rest = chain[len(chain) - 1 - depth :]
        link = known.get(rest) or _link(store, ref, link, depth)
        if rest in shared:
            known[rest] = link
        yield link


def _link(store: Frames, ref: Ref, below: Link | None, depth: int) -> Link:
    data, location = below or (None, None)
    try:
        if ref.length > _LONGEST:
            raise CorruptObjectError(f"a frame has {_LONGEST:,} bytes at most")
        frame = decode_frame(store.read(ref))
        decoded = _decode_frame(frame, data, location.hash if location else None, ref.length)
    except CorruptObjectError as error:
        raise _corrupt(ref, error.message) from error
    except MissingObjectError as error:
        raise MissingObjectError(
            f"object {short_id(ref.oid)} is not here", hint=error.hint
        ) from error
    return decoded, Location(frame.content, frame.raw_length, ref, frame.base, depth)


def _decode_frame(frame: Frame, base: Bytes | None, base_hash: str | None, stored: int) -> Bytes:
    encoding = registry.encoding_numbered(frame.encoding)
    if encoding is None:
        raise UnsupportedVersionError(
            f"encoding {frame.encoding} is not one that this git-theta has",
            hint="pip install --upgrade theta-vcs, or install the package that offers it",
        )
    if frame.base != base_hash or encoding.needs_base != (base is not None):
        raise CorruptObjectError("its base is not the frame that the manifest names")
    if not is_affordable(encoding, frame.encoded, frame.raw_length, stored):
        raise CorruptObjectError(f"{stored} bytes do not pay for the work that it asks for")
    geometry = Geometry(dtype(frame.dtype))
    data = encoding.decode(frame.encoded, base, geometry, frame.raw_length)
    if content_hash(data.data) != frame.content:
        raise CorruptObjectError("its content does not have the hash that it claims")
    return data


def _corrupt(ref: Ref, why: str) -> CorruptObjectError:
    return CorruptObjectError(
        f"object {short_id(ref.oid)} is corrupt at {ref.offset}: {why}",
        hint="git theta fsck --repair  (names every checkpoint that needs it, and restores it)",
    )
