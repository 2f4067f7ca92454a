"""The decoders of the second reader, written from docs/spec.md, Encodings, and nothing else."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np


class Frame(NamedTuple):
    """A frame's fields; each part is its word size and its planes put together again."""

    encoding: int
    dtype: str
    raw_length: int
    content: str
    base: str | None
    params: bytes
    parts: list[tuple[int, bytes]]


WIDTH = {"F64": 8, "I64": 8, "U64": 8, "C128": 8, "F32": 4, "I32": 4, "U32": 4, "C64": 4}
WIDTH |= {"F16": 2, "BF16": 2, "I16": 2, "U16": 2}


def _words(frame: Frame, base: bytes) -> np.ndarray:
    """The words of the fitted base, a copy."""
    width = WIDTH.get(frame.dtype, 1)
    if frame.raw_length % width:
        width = 1
    fitted = bytearray(base[: frame.raw_length].ljust(frame.raw_length, b"\0"))
    return np.frombuffer(fitted, f"<u{width}")


def _apply(old: np.ndarray, differences: np.ndarray) -> np.ndarray:
    one = np.array(1, old.dtype)
    return old + ((differences >> one) ^ (~(differences & one) + one))


def _positions(gaps: bytes) -> Iterator[int]:
    position = 0
    for byte in gaps:
        position += byte
        if byte < 255:
            yield position
            position += 1


def _full(frame: Frame, base: bytes) -> bytes:
    ((_word, raw),) = frame.parts
    return raw


class _Model(NamedTuple):
    """The parameters of a delta frame."""

    shift: int
    lanes: int
    literals: list[int]
    bounds: list[int]
    frequencies: list[list[int]]


def _model(params: bytes) -> _Model:
    shift, lanes, has_literals, more, *rest = params
    literals = list(range(16))
    if has_literals:
        literals, rest = list(struct.unpack("<16H", bytes(rest[:32]))), rest[32:]
    bounds, rest = [0, *rest[:more]], rest[more:]
    frequencies = []
    for _ in bounds:
        count, rest = rest[0], rest[1:]
        row = [c if c < 16 else (16 + c % 16) << (c // 16 - 1) for c in rest[:count]]
        place = rest[:count].index(255)
        row[place] = 0
        row[place] = 4096 - sum(row)
        frequencies.append(row)
        rest = rest[count:]
    assert not rest
    return _Model(shift, 1 << lanes, literals, bounds, frequencies)


def _delta(frame: Frame, base: bytes) -> bytes:
    old, model = _words(frame, base), _model(frame.params)
    (_, stream), (_, bits) = frame.parts
    states = list(struct.unpack_from(f"<{model.lanes}I", stream))
    words = (w for (w,) in struct.iter_unpack("<H", stream[4 * model.lanes :]))
    slots = [
        [(f, slot, token) for token, f in enumerate(row) for slot in range(f)]
        for row in model.frequencies
    ]
    differences, used = [], 0
    for i, key in enumerate((old >> model.shift & 255).tolist()):
        context = sum(key >= bound for bound in model.bounds) - 1
        state = states[i % model.lanes]
        frequency, slot, token = slots[context][state % 4096]
        state = frequency * (state // 4096) + slot
        states[i % model.lanes] = state if state >= 1 << 16 else state << 16 | next(words)
        length = max(0, (token - 16) // 2 - 1)
        if token < 16:
            differences.append(model.literals[token])
        elif token < 18:
            differences.append(token - 16)
        else:
            raw = int.from_bytes(bits[used // 8 :][:9], "little") >> used % 8
            differences.append((2 + token % 2) << length | raw & (1 << length) - 1)
        used += length
    assert set(states) == {1 << 16}
    assert next(words, None) is None
    assert len(bits) == (used + 7) // 8
    return _apply(old, np.array(differences, old.dtype)).tobytes()


def _sparse(frame: Frame, base: bytes) -> bytes:
    words = _words(frame, base)
    (_, gaps), (_, stored) = frame.parts
    changed = np.fromiter(_positions(gaps), np.int64)
    words[changed] = _apply(words[changed], np.frombuffer(stored, words.dtype))
    return words.tobytes()


FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
FACTORS = [None, "I8", "I16", "I32", "I64", "F16", "BF16", "F32", "F64"]


def _widen(words: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "BF16":
        return (words.astype("<u4") << 16).view("<f4").astype(np.float64)
    if dtype in FLOATS:
        return words.view(FLOATS[dtype]).astype(np.float64)
    return _apply(np.zeros_like(words), words).view(f"<i{words.itemsize}").astype(np.float64)


def _narrow(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype != "BF16":
        return values.astype(FLOATS[dtype]).view(f"<u{WIDTH[dtype]}")
    single = values.astype("<f4").view("<u4")
    return ((single + 0x7FFF + (single >> 16 & 1)) >> 16).astype("<u2")


def _matrix(part: tuple[int, bytes], rows: int) -> np.ndarray:
    return np.frombuffer(part[1], f"<u{part[0]}").reshape(rows, -1)


def _correct(values: np.ndarray, frame: Frame, base: np.ndarray) -> bytes:
    """Narrow the prediction and add the residual."""
    words = np.where(np.isnan(values), base, _narrow(values, frame.dtype)).reshape(-1)
    (_, gaps), (_, stored) = frame.parts[-2:]
    differences = np.frombuffer(stored, words.dtype)
    dense = not gaps and stored
    where = np.arange(words.size) if dense else np.fromiter(_positions(gaps), np.int64)
    words[where] = _apply(words[where], differences)
    return words.tobytes()


@np.errstate(all="ignore")
def _low_rank(frame: Frame, base: bytes) -> bytes:
    how, rounded, *dtypes, rank, parameters = struct.unpack_from("<BBBBHI", frame.params)
    scales = np.frombuffer(frame.params[10:], "<f8")
    left, right = (
        _widen(_matrix(part, rank), FACTORS[number])
        for part, number in zip(frame.parts, dtypes, strict=False)
    )
    if how < 2:
        left = left * scales[:, None]
    if how == 1:
        left, right = left.astype(np.float32), right.astype(np.float32)
    change = np.zeros((left.shape[1], parameters), np.float64 if how == 0 else np.float32)
    for k in range(rank):
        change = (change + left[k][:, None] * right[k]).astype(change.dtype)
    if how == 2:
        change = change * np.float32(scales[0])
    if rounded:
        dtype = FACTORS[rounded]
        change = _widen(_narrow(change, dtype), dtype).astype(change.dtype)
    old = np.frombuffer(base, f"<u{WIDTH[frame.dtype]}").reshape(-1, parameters)
    wide = how == 0 or frame.dtype == "F64"
    value = _widen(old, frame.dtype).astype(np.float64 if wide else np.float32)
    return _correct(value + change, frame, old)


@np.errstate(all="ignore")
def _ia3(frame: Frame, base: bytes) -> bytes:
    axis, number, parameters = struct.unpack("<BBI", frame.params)
    dtype = ["F16", "BF16", "F32", "F64"][number]
    kind = np.float64 if "F64" in (dtype, frame.dtype) else np.float32
    factors = _widen(_matrix(frame.parts[0], 1), dtype).astype(kind)
    old = np.frombuffer(base, f"<u{WIDTH[frame.dtype]}").reshape(-1, parameters)
    value = _widen(old, frame.dtype).astype(kind)
    return _correct(value * (factors if axis else factors.T), frame, old)


@np.errstate(all="ignore")
def _cast(frame: Frame, base: bytes) -> bytes:
    dtype = ["F16", "BF16", "F32", "F64"][frame.params[0]]
    value = _widen(np.frombuffer(base, f"<u{WIDTH[dtype]}"), dtype)
    return _correct(value, frame, np.zeros(value.size, f"<u{WIDTH[frame.dtype]}"))


DECODERS: dict[int, Callable[[Frame, bytes], bytes]] = {
    0: _full,
    1: _delta,
    2: _sparse,
    3: _low_rank,
    4: _ia3,
    5: _cast,
}
