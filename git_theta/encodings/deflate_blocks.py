"""The blocks of a DEFLATE stream (RFC 1951): read as tokens, and written again.

A token is a literal byte or a match: a copy of bytes before it. Which of them a compressor chose,
and how it cut its output into blocks, does not follow from the bytes. With that known, the stream
does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from git_theta.encodings.deflate_codes import WIDEST, BitReader, Header, read_header
from git_theta.errors import CorruptObjectError

Bytes = NDArray[np.uint8]

SHORTEST, LONGEST, FURTHEST = 3, 258, 1 << 15
_END = 256
_MASK = (1 << WIDEST) - 1
# 3.2.5: extra bits, and from them the smallest value of each code
_LENGTH_BITS = np.array([0] * 8 + [n // 4 for n in range(4, 24)] + [0])
_DISTANCE_BITS = np.array([0, 0] + [n // 2 for n in range(28)])
_LENGTHS = SHORTEST + np.concatenate([[0], np.cumsum(1 << _LENGTH_BITS)[:-1]])
_LENGTHS[-1] = LONGEST
_DISTANCES = 1 + np.concatenate([[0], np.cumsum(1 << _DISTANCE_BITS)[:-1]])
_WINDOW = 4 << 10  # bytes of which every bit is taken for the first of a code
_SHIFTS = np.arange(8, dtype=np.uint32)


class Tokens(NamedTuple):
    """A stream's blocks, by the bits of their headers and numbers of tokens, and its matches.

    ``places`` are the indices of matches among all tokens.
    """

    headers: Bytes
    counts: NDArray[np.uint32]
    places: NDArray[np.int64]
    lengths: NDArray[np.int64]
    distances: NDArray[np.int64]


def read_tokens(stream: Bytes, most: int) -> Tokens | None:
    """Return the tokens of a stream; ``None`` for over ``most`` matches, or bytes behind its end.

    Raises ``CorruptObjectError`` where it is none, or has a block that is not coded.
    """
    reader, headers, counts, total = BitReader(stream), list[Bytes](), list[int](), 0
    matches: list[tuple[int, int, int]] = []
    is_last = False
    while not is_last:
        start = reader.position
        header = read_header(reader)
        is_last = header.is_last
        headers.append(_bits(stream, start, reader.position))
        count, found = _read_block(reader, header)
        matches += [(total + place, length, far) for place, length, far in found]
        counts.append(count)
        total += count
        if len(matches) > most:
            return None
    if reader.position + 7 >> 3 != stream.size:
        return None
    table = np.array(matches, np.int64).reshape(-1, 3).T
    packed = np.packbits(np.concatenate(headers), bitorder="little")
    return Tokens(packed, np.array(counts, np.uint32), *table)


def _bits(stream: Bytes, start: int, stop: int) -> Bytes:
    first = start >> 3
    unpacked = np.unpackbits(stream[first : (stop + 7) >> 3], bitorder="little")
    return unpacked[start - 8 * first : stop - 8 * first]


def _read_block(reader: BitReader, header: Header) -> tuple[int, list[tuple[int, int, int]]]:
    """Return the number of tokens, and of each match its place, length and distance.

    What each bit would begin is looked up for many at once; then only steps are added.
    """
    literals, far = header.literals.table(), header.distances.table()
    count, matches = 0, list[tuple[int, int, int]]()
    while True:
        first = reader.position >> 3
        steps = _steps(reader.data[first : first + _WINDOW + 2], literals)
        at, end = reader.position - 8 * first, len(steps)
        before = at
        while at < end:
            while at < end and (step := steps[at]):
                at += step
                count += 1
            if at >= end:
                break
            reader.position = 8 * first + at
            symbol = reader.symbol(literals)
            if symbol == _END:
                return count, matches
            matches.append((count, *_match(reader, symbol - _END - 1, far)))
            count += 1
            at = reader.position - 8 * first
        if at == before:
            raise CorruptObjectError("a deflated stream is cut off")
        reader.position = 8 * first + at


def _steps(data: Bytes, table: NDArray[np.uint16]) -> list[int]:
    """Return how many bits the literal takes that each bit begins: 0 where it is none."""
    wide = np.concatenate([data, np.zeros(2, np.uint8)]).astype(np.uint32)
    words = wide[:-2] | wide[1:-1] << 8 | wide[2:] << 16
    if data.size > _WINDOW:
        words = words[:_WINDOW]
    found = table[(words[:, None] >> _SHIFTS & _MASK).reshape(-1)]
    steps: list[int] = np.where(found < _END << 4, found & 15, 0).tolist()
    return steps


def _match(reader: BitReader, code: int, far: NDArray[np.uint16]) -> tuple[int, int]:
    if code >= _LENGTHS.size:
        raise CorruptObjectError("a deflated stream has an invalid length")
    length = int(_LENGTHS[code]) + reader.take(int(_LENGTH_BITS[code]))
    code = reader.symbol(far)
    if code >= _DISTANCES.size:
        raise CorruptObjectError("a deflated stream has an invalid distance")
    return length, int(_DISTANCES[code]) + reader.take(int(_DISTANCE_BITS[code]))


def write_tokens(plain: Bytes, tokens: Tokens, size: int) -> Bytes:
    """Return the stream of ``size`` bytes with these tokens, or raise ``CorruptObjectError``."""
    writer, reader = _Writer(size), BitReader(tokens.headers)
    total = int(tokens.counts.sum(dtype=np.int64))
    if np.any(np.diff(tokens.places) < 1) or (tokens.places.size and tokens.places[-1] >= total):
        raise CorruptObjectError("a deflated frame has matches where there is no token")
    symbols, where = _symbols(plain, tokens, total)
    first = 0
    for count in tokens.counts.tolist():
        start = reader.position
        header = read_header(reader)
        bits = _bits(tokens.headers, start, reader.position)
        writer.write(bits.astype(np.uint64), np.ones(bits.size, np.uint64))
        inside = slice(*np.searchsorted(tokens.places, (first, first + count)))
        here = symbols[first : first + count]
        _write_block(writer, header, here, where[inside] - first, tokens, inside)
        first += count
    return writer.finish()


def _symbols(
    plain: Bytes, tokens: Tokens, total: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the symbol of each token, and the places of matches."""
    copied = int(tokens.lengths.sum())
    if total - tokens.places.size + copied != plain.size:
        raise CorruptObjectError("a deflated frame does not have a token for each byte")
    before = np.concatenate([[0], np.cumsum(tokens.lengths)[:-1]]) if copied else tokens.lengths
    starts = tokens.places - np.arange(tokens.places.size) + before
    change = np.zeros(plain.size + 1, np.int32)
    np.add.at(change, starts, 1)
    np.add.at(change, starts + tokens.lengths, -1)
    is_literal = np.cumsum(change[:-1]) == 0
    symbols = np.empty(total, np.int64)
    is_match = np.zeros(total, bool)
    is_match[tokens.places] = True
    symbols[~is_match] = plain[is_literal]
    symbols[is_match] = _END + 1 + _code_of(_LENGTHS, tokens.lengths)
    return symbols, tokens.places


def _code_of(smallest: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.searchsorted(smallest, values, side="right") - 1


def _write_block(
    writer: _Writer,
    header: Header,
    symbols: NDArray[np.int64],
    places: NDArray[np.int64],
    tokens: Tokens,
    inside: slice,
) -> None:
    """``places`` are those of the block's matches, the ones ``inside`` among all, in the block."""
    every = np.append(symbols, _END)
    if every.max() >= header.literals.bits.size:
        raise CorruptObjectError("a deflated block has a token without a code")
    words, bits = header.literals.words[every], header.literals.bits[every]
    if places.size:
        lengths, distances = tokens.lengths[inside], tokens.distances[inside]
        for codes, values, table, extra in (
            (None, lengths, _LENGTHS, _LENGTH_BITS),
            (header.distances, distances, _DISTANCES, _DISTANCE_BITS),
        ):
            code = _code_of(table, values)
            if codes is not None:
                if code.max() >= codes.bits.size or not codes.bits[code].all():
                    raise CorruptObjectError("a deflated block has a distance without a code")
                words[places] |= codes.words[code] << bits[places]
                bits[places] += codes.bits[code]
            words[places] |= (values - table[code]).astype(np.uint64) << bits[places]
            bits[places] += extra[code].astype(np.uint64)
    if not bits.all():
        raise CorruptObjectError("a deflated block has a token without a code")
    writer.write(words, bits)


class _Writer:
    """Puts words of so many bits, 48 at most, one after another."""

    def __init__(self, size: int) -> None:
        self._data = np.zeros(size + 8, np.uint8)
        self._size = size
        self._position = 0

    def write(self, words: NDArray[np.uint64], bits: NDArray[np.uint64]) -> None:
        """Take words, the lowest of their bits first."""
        ends = self._position + np.cumsum(bits.astype(np.int64))
        if ends.size and ends[-1] > 8 * self._size:
            raise CorruptObjectError("a deflated frame has more tokens than bytes")
        starts = ends - bits.astype(np.int64)
        self._position = int(ends[-1]) if ends.size else self._position
        places, shifts = starts >> 3, (starts & 7).astype(np.uint64)
        shifted, widths = words << shifts, bits + shifts
        for byte in range(7):
            # No two words have a bit in common, so that adding them joins them.
            low = (shifted >> np.uint64(8 * byte)).astype(np.uint8)
            np.add.at(self._data, places + byte, low)
            wide = widths > 8 * (byte + 1)
            if not wide.all():
                places, shifted, widths = places[wide], shifted[wide], widths[wide]

    def finish(self) -> Bytes:
        """Return all bytes, which must be full."""
        if self._position + 7 >> 3 != self._size:
            raise CorruptObjectError("a deflated frame has fewer tokens than bytes")
        return self._data[: self._size]
