"""One chunk as a frame: the encoding that costs least."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np

from git_theta.checkpoint.chunk_decoder import Base
from git_theta.checkpoint.limits import is_affordable
from git_theta.codec import Frame, encode_frame, estimate, parts_limit
from git_theta.core import registry
from git_theta.core.arrays import Bytes
from git_theta.core.blocks import BLOCKS
from git_theta.core.hashes import Ref
from git_theta.core.layout import Buffer, Encoded, Geometry
from git_theta.core.registry import ComparesWhileDecoding, Encoding

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


class EncodedChunk(NamedTuple):
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
        transposition=base.transposition if base else None,
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


def _alone(raw: Bytes, geometry: Geometry) -> tuple[Encoding, Encoded]:
    """Return the chunk without a base: as blocks where these are known and take less."""
    blocks = registry.encoding_named("blocks")
    encoded = blocks.encode(raw, None, geometry) if geometry.dtype.name in BLOCKS else None
    full, plain = _full(raw, geometry)
    if encoded is None or _cost(encoded) >= _cost(plain):
        return full, plain
    is_exact = _is_exact(blocks, encoded, raw, raw, geometry)
    return (blocks, encoded) if is_exact else (full, plain)


def _choose(
    raw: Bytes, geometry: Geometry, base: Base | None, suggestion: Suggestion | None
) -> tuple[Encoding, Encoded]:
    alone, plain = _alone(raw, geometry)
    if base is None:
        return alone, plain
    # A base must earn its place in the chain.
    most = estimate(plain.parts, _WEIGHTS_BLOCKS) * (1 - _GAIN_PER_LINK * len(base.chain))
    found = list(_against_a_base(raw, geometry, base.data, suggestion))
    for cost, encoding, encoded in sorted(found, key=lambda each: each[0]):
        if cost < most and _is_exact(encoding, encoded, raw, base.data, geometry):
            return encoding, encoded
    return alone, plain


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
