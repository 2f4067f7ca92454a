"""Models of differences: contexts, frequencies and literals, chosen from counts, and as bytes.

What a weight's change looks like depends on its size: a step of training moves all of them by
about the same, which for small ones is many steps between neighbouring floats and for large ones
few or none. So a byte of the base's word, for floats its exponent, selects the frequencies. bf16
fine-tunes of MiniLM (60 AdamW steps), share of raw by order-0 entropy: 0.117; given the exponent
0.096; given also the two differences before 0.0954, which is not worth a serial decoder.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from git_theta.core import kernels
from git_theta.core.dtypes import DType
from git_theta.core.kernels import (
    LITERALS,
    MAX_CONTEXTS,
    MAX_LANES,
    TOKENS,
    TOTAL,
    Literals,
    Model,
    Tokens,
)
from git_theta.encodings.zigzag import Words
from git_theta.errors import CorruptObjectError

# A context of its own for a key that so many words have: its table takes about 30 bytes.
_LEAST_WORDS, _LEAST_SHARE = 2048, 1 / 64
# A lane costs the three bytes, on average, by which its last state is longer than what it says:
# 0.75 % of the chunk at most. The compiled coder needs 16; numpy needs many, to be fast.
_BYTES_PER_LANE = 400
# Frequencies are stored in one byte, with five significant bits.
_FINE = 16
_REST = 255
_FLOATS_FROM = {"BF16": 7, "F16": 7, "F32": 23, "C64": 23, "F64": 52, "C128": 52}
_SAMPLE, _RUN = 1 << 14, 64
# Literals other than the smallest differences must stand for so many more of the words: they save
# these a few bits each, and cost a look-up for every word.
_LITERALS_GAIN = 1 / 64


@dataclass(frozen=True)
class Fit:
    """A model for some words, these as tokens, their number of raw bits, and room for them coded.

    ``room`` is in words of 16 bits, 2 % and a little more than what the frequencies say.
    """

    model: Model
    tokens: Tokens
    raw_bits: int
    room: int


def key_shift(dtype: DType, word: int) -> int:
    """Return the place of the byte that says most in words of so many: for floats the exponent."""
    if dtype.word == word and dtype.name in _FLOATS_FROM:
        return _FLOATS_FROM[dtype.name]
    return 8 * (word - 1)


def fit(new: Words, old: Words, shift: int) -> Fit:
    """Return the model that suits these words, by what all of them look like."""
    literals = _common(new, old) if new.itemsize > 2 else None
    tokens = kernels.tokenize(new, old, shift, literals)
    by_key = tokens.counts
    bounds = _bounds(by_key.sum(axis=1, dtype=np.int64))
    counts = np.zeros((bounds.size, TOKENS), np.int64)
    counts[:, : by_key.shape[1]] = np.add.reduceat(by_key, bounds, axis=0, dtype=np.int64)
    frequencies = _frequencies(counts)
    used = counts > 0
    bits = float((counts[used] * (kernels.PRECISION - np.log2(frequencies[used]))).sum())
    raw = int((counts.sum(axis=0) * _RAW_BITS).sum())
    size = int(bits + raw) // 8
    lanes = 1 << min(MAX_LANES, max(1, size // _BYTES_PER_LANE)).bit_length() - 1
    model = Model(shift, _contexts(bounds), frequencies, lanes, literals)
    return Fit(model, tokens, raw, int(bits * 1.02) // 16 + lanes + _ROOM)


_LONG = np.arange(TOKENS) - LITERALS
_RAW_BITS = np.maximum(_LONG // 2 - 1, 0)
_ROOM = 64


def _common(new: Words, old: Words) -> Literals | None:
    """Return the most common small differences of a sample; ``None`` where these are the smallest.

    Weight decay moves the rows of an embedding that no batch has touched by a few steps that are
    the same for many words.
    """
    here = _sample(new), _sample(old)
    found = np.empty_like(here[0])
    kernels.difference(*here, found)
    small = np.sort(found[found < 1 << 16])
    if not small.size:
        return None
    edges = np.flatnonzero(np.concatenate([[True], small[1:] != small[:-1]]))
    values, counts = small[edges], np.diff(edges, append=small.size)
    smallest, least = int(np.searchsorted(small, LITERALS)), _LITERALS_GAIN * found.size
    # First a bound: most often it tells that no others are common.
    if LITERALS * int(counts.max()) - smallest < least:
        return None
    # Of those that are as common, the smallest.
    best = np.argsort(-counts, kind="stable")[:LITERALS]
    if int(counts[best].sum()) - smallest < least:
        return None
    others = np.setdiff1d(np.arange(2 * LITERALS), values)[: LITERALS - best.size]
    return Literals(np.sort(np.concatenate([values[best], others])).astype(np.uint64))


def _sample(words: Words) -> Words:
    """Return all words, or about ``_SAMPLE`` of them, in short runs, as each comes from memory."""
    if words.size <= _SAMPLE:
        return np.ascontiguousarray(words)
    step = words.size // _SAMPLE * _RUN
    whole = words[: words.size - words.size % step].reshape(-1, step)
    return np.ascontiguousarray(whole[:, :_RUN]).reshape(-1)


def _bounds(counts: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the first key of each context: keys in turn, until enough words have one of them."""
    least = max(_LEAST_WORDS, int(counts.sum() * _LEAST_SHARE))
    bounds, held = [0], 0
    for key in np.flatnonzero(counts).tolist():
        if held >= least and len(bounds) < MAX_CONTEXTS:
            bounds.append(key)
            held = 0
        held += int(counts[key])
    if held < least and len(bounds) > 1:
        bounds.pop()
    return np.array(bounds, np.intp)


def _contexts(bounds: NDArray[np.intp]) -> NDArray[np.uint8]:
    return (np.searchsorted(bounds, np.arange(256), side="right") - 1).astype(np.uint8)


def _frequencies(counts: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Frequencies that add up to ``TOTAL`` in each row, at least 1 where there is a count.

    All but each row's largest have five significant bits; the largest is the rest.
    """
    rows, best = np.arange(len(counts)), counts.argmax(axis=1)
    sums = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    exact = counts * TOTAL // sums
    found = _EXPANDED[_CODES[np.where(counts > 0, np.maximum(exact, 1), 0)]]
    found[rows, best] = 0
    over = found.sum(axis=1) >= TOTAL
    if over.any():  # many tokens, most of them rare: leave room for a frequency of 1 for each
        spare = TOTAL - 1 - (counts > 0).sum(axis=1, keepdims=True)
        less = np.where(counts > 0, np.maximum(counts * spare // sums, 1), 0)
        found[over] = _EXPANDED[_CODES[less]][over]
        found[rows, best] = 0
    found[rows, best] = TOTAL - found.sum(axis=1)
    return found.astype(np.uint16)


def _expand_code(code: int) -> int:
    exponent = code >> 4
    return (code & 15 | _FINE) << exponent - 1 if exponent else code


# The frequency that each code stands for: 0 to 15, then floats; and the code of the largest that is
# at most each frequency.
_EXPANDED = np.array([_expand_code(code) for code in range(_REST)], np.int64)
_CODES = (np.searchsorted(_EXPANDED, np.arange(TOTAL + 1), side="right") - 1).astype(np.uint8)


def to_bytes(model: Model) -> bytes:
    """Return the model as parameters of a frame (``docs/spec.md``, Delta)."""
    literals = b"" if model.literals is None else model.literals.values.astype("<u2").tobytes()
    bounds = np.flatnonzero(np.diff(model.contexts)) + 1
    head = bytes([model.shift, model.lanes.bit_length() - 1, bool(literals), bounds.size])
    codes = _CODES[model.frequencies]
    codes[np.arange(len(codes)), model.frequencies.argmax(axis=1)] = _REST
    rows = (row.tobytes().rstrip(b"\0") for row in codes)
    return head + literals + bytes(bounds.tolist()) + b"".join(bytes([len(r)]) + r for r in rows)


def from_bytes(stored: bytes, word: int) -> Model:
    """Return the model for words of so many bytes; ``CorruptObjectError`` if it is not one."""
    try:
        return _read(stored, word)
    except (IndexError, ValueError) as error:
        raise CorruptObjectError(f"malformed model of differences: {error}") from error


def _read(stored: bytes, word: int) -> Model:
    shift, lanes, has_literals, more = stored[:4]
    if shift >= 8 * word or 1 << lanes > MAX_LANES or has_literals > 1:
        raise ValueError("its head")
    position = 4
    literals = None
    if has_literals:
        literals = _read_literals(stored[position : position + 2 * LITERALS], word)
        position += 2 * LITERALS
    bounds = np.array([0, *stored[position : position + more]], np.intp)
    if bounds.size != more + 1 or (np.diff(bounds) <= 0).any() or more >= MAX_CONTEXTS:
        raise ValueError("its contexts")
    position += more
    codes = np.zeros((bounds.size, TOKENS), np.uint8)
    for row in codes:
        count = stored[position]
        row[:count] = np.frombuffer(stored, np.uint8, count, position + 1)
        position += 1 + count
    if position != len(stored):
        raise ValueError("its length")
    return Model(shift, _contexts(bounds), _read_frequencies(codes), 1 << lanes, literals)


def _read_literals(stored: bytes, word: int) -> Literals:
    values = np.frombuffer(stored, "<u2").astype(np.uint64)
    if values.size != LITERALS or len(set(values.tolist())) != LITERALS:
        raise ValueError("its literals")
    if int(values.max()) >> 8 * word:
        raise ValueError("a literal is too large for a word")
    return Literals(values)


def _read_frequencies(codes: NDArray[np.uint8]) -> NDArray[np.uint16]:
    largest = codes == _REST
    if (largest.sum(axis=1) != 1).any():
        raise ValueError("its frequencies")
    found = _EXPANDED[np.where(largest, 0, codes)]
    rest = TOTAL - found.sum(axis=1)
    if (rest < 1).any():
        raise ValueError("its frequencies are too large")
    found[largest] = rest
    return found.astype(np.uint16)
