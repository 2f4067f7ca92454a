"""Encoding 7: a deflated array against another one, inflated (``docs/spec.md``, Deflate).

Deflated, two versions of an array have nothing in common. What they inflate to is compared instead,
and from that the stream is written again: bit for bit, since the frame has its tokens, and without
a compressor, which would write other bytes in another version. Of fp32 weights a match is one
token in 370; with the headers of blocks they take 1 % of the plain bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from git_theta.core import registry
from git_theta.core.dtypes import DEFLATED, dtype
from git_theta.core.layout import Encoded, Geometry, Part
from git_theta.encodings.deflate_blocks import (
    FURTHEST,
    LONGEST,
    SHORTEST,
    Tokens,
    read_tokens,
    write_tokens,
)
from git_theta.encodings.gaps import iter_positions, to_gaps
from git_theta.errors import CorruptObjectError

Bytes = NDArray[np.uint8]

_PARAMS = struct.Struct("<BBQ")  # inner encoding, length of the dtype's name, plain bytes
_INNER = ("delta", "sparse")
_OWN = 5  # parts
_MOST = 1 << 26
# Weights deflate to nine tenths. What inflates more than this is zeros, or a bomb.
_EXPANDS, _LITTLE = 16, 1 << 10
# A header with its codes takes 300 us, as long as looking at 512 KiB.
_HEADER = 16 * FURTHEST
# Of the tokens: text has more matches, and is no array of weights.
_MATCHES = 1 / 32


class Deflate:
    """Needs a base that is a deflated stream too."""

    name = "deflate"
    number = 7
    needs_base = True

    def encode(self, raw: Bytes, base: Bytes | None, geometry: Geometry) -> Encoded | None:
        """Return the difference of what both inflate to, and the tokens; ``None`` for others."""
        if base is None or not geometry.dtype.name.startswith(DEFLATED):
            return None
        plain, old = _inflated(raw), _inflated(base)
        if plain is None or old is None or not plain.size:
            return None
        try:
            tokens = read_tokens(raw, int(_MATCHES * plain.size))
        except CorruptObjectError:
            return None  # a block that is stored as it is: of noise, which has no difference
        inner = Geometry(dtype(geometry.dtype.name.removeprefix(DEFLATED)))
        if tokens is None or (found := _closest(plain, old, inner)) is None:
            return None
        number, encoded = found
        name = inner.dtype.name.encode()
        params = _PARAMS.pack(number, len(name), plain.size) + name + encoded.params
        return Encoded(params, (*_parts(tokens, plain), *encoded.parts))

    def decode(
        self, encoded: Encoded, base: Bytes | None, geometry: Geometry, length: int
    ) -> Bytes:
        """Return the ``length`` raw bytes; ``CorruptObjectError`` when the parts do not fit."""
        number, kind, size, params = _read_params(encoded.params)
        inner = registry.encoding_numbered(number)
        old = None if base is None else _inflated(base)
        if old is None or inner is None or inner.name not in _INNER:
            raise CorruptObjectError("a deflate frame has no base, or what is inside is unknown")
        if not 0 < size <= _limit(length):
            raise CorruptObjectError("a deflate frame has no base, or what is inside is unknown")
        own, parts = encoded.parts[:_OWN], encoded.parts[_OWN:]
        plain = inner.decode(Encoded(params, parts), old, Geometry(dtype(kind)), size)
        return write_tokens(plain, _tokens(own, plain), length)

    def work(self, encoded: Encoded, length: int) -> int:
        """Return the bytes to look at (see ``limits``): 32 KiB for each match, more for a block."""
        blocks = sum(part.nbytes // part.word for part in encoded.parts[1:2])
        return FURTHEST * sum(part.nbytes for part in encoded.parts[3:4]) + _HEADER * blocks


ENCODING = Deflate()


def _inflated(data: Bytes) -> Bytes | None:
    """Return what a whole stream inflates to, ``None`` where it is none, or more than a chunk."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        found = inflater.decompress(data.tobytes(), _limit(data.size))
    except zlib.error:
        return None
    if not inflater.eof or inflater.unused_data:
        return None
    return np.frombuffer(found, np.uint8)


def _limit(length: int) -> int:
    """Return how many bytes a stream of ``length`` may inflate to."""
    return min(_MOST, _EXPANDS * length + _LITTLE)


def _closest(plain: Bytes, old: Bytes, inner: Geometry) -> tuple[int, Encoded] | None:
    encodings = [registry.encoding_named(name) for name in _INNER]
    found = [(each.number, each.encode(plain, old, inner)) for each in encodings]
    sizes = [
        (sum(part.nbytes for part in encoded.parts), number, encoded)
        for number, encoded in found
        if encoded
    ]
    if not sizes:
        return None
    _, number, encoded = min(sizes, key=lambda each: each[0])
    return number, encoded


def _parts(tokens: Tokens, plain: Bytes) -> Iterator[Part]:
    gaps = to_gaps(tokens.places, -1) if tokens.places.size else np.zeros(0, np.uint8)
    text, far = plain.tobytes(), np.zeros(tokens.places.size, "<u2")
    for at, (start, length, distance) in enumerate(_matches(tokens)):
        far[at] = 0 if _nearest(text, start, length) == distance else distance & 0xFFFF
    lengths = (tokens.lengths - SHORTEST).astype(np.uint8)
    yield Part(1, tokens.headers.data)
    yield Part(4, tokens.counts.astype("<u4").view(np.uint8).data)
    yield Part(1, gaps.data)
    yield Part(1, lengths.data)
    yield Part(2, far.view(np.uint8).data)


def _matches(tokens: Tokens) -> Iterator[tuple[int, int, int]]:
    """Yield where in the plain bytes each match begins, its length and its distance."""
    copied = 0
    rows = zip(
        tokens.places.tolist(), tokens.lengths.tolist(), tokens.distances.tolist(), strict=True
    )
    for at, (place, length, distance) in enumerate(rows):
        yield place - at + copied, length, distance
        copied += length


def _nearest(text: bytes, start: int, length: int) -> int:
    """Return how far before ``start`` its ``length`` bytes stood last; beyond all where nowhere."""
    wanted = text[start : start + length]
    return start - text.rfind(wanted, max(0, start - FURTHEST), max(0, start + length - 1))


def _read_params(params: bytes) -> tuple[int, str, int, bytes]:
    if len(params) < _PARAMS.size:
        raise CorruptObjectError("the params of a deflate frame are cut off")
    number, count, size = _PARAMS.unpack_from(params)
    name = params[_PARAMS.size : _PARAMS.size + count]
    if len(name) < count or not name.isascii():
        raise CorruptObjectError("the params of a deflate frame are cut off")
    return number, name.decode("ascii"), size, params[_PARAMS.size + count :]


def _tokens(parts: tuple[Part, ...], plain: Bytes) -> Tokens:
    if [part.word for part in parts] != [1, 4, 1, 1, 2]:
        raise CorruptObjectError("a deflate frame has other parts than it should")
    headers, words, gaps, lengths, far = (np.frombuffer(part.data, np.uint8) for part in parts)
    counts = words.view("<u4")
    total = int(counts.sum(dtype=np.int64))
    if total > plain.size:
        raise CorruptObjectError("a deflate frame has more tokens than bytes")
    places = np.concatenate([np.zeros(0, np.int64), *iter_positions(gaps, total)])
    distances = far.view("<u2").astype(np.int64)
    if not places.size == lengths.size == distances.size:
        raise CorruptObjectError("a deflate frame lacks a length or distance of a match")
    sizes = lengths.astype(np.int64) + SHORTEST
    tokens = Tokens(headers, counts, places.astype(np.int64), sizes, distances)
    if sizes.size and sizes.max() > LONGEST:
        raise CorruptObjectError("a deflate frame has a match that is too long")
    text = plain.tobytes()
    for at, (start, length, distance) in enumerate(_matches(tokens)):
        if not distance:
            tokens.distances[at] = min(_nearest(text, start, length), FURTHEST)
    return tokens
