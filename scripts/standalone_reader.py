#!/usr/bin/env python3
"""Rebuild a checkpoint from its manifest and a folder of Git LFS objects, without git-theta.

This one file is written from docs/spec.md and imports nothing of git-theta. It needs Python 3.10,
numpy and zstandard; with blake3 it checks every chunk too (objects are always checked).

    python standalone_reader.py MANIFEST OBJECTS FILE

MANIFEST is the text that Git has in the checkpoint's place, OBJECTS a folder such as
.git/lfs/objects or .git/theta/objects. In a clone that has neither:

    git fetch origin "+refs/theta/objects/*:refs/theta/objects/*"
    git lfs fetch origin $(git for-each-ref --format="%(refname)" refs/theta/objects)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zstandard

try:
    from blake3 import blake3
except ImportError:
    blake3 = None  # type: ignore[assignment,misc]

PREFIX = b'{"git-theta":'
VERSION = 1


class UnreadableError(Exception):
    """The manifest or an object is not what the specification says."""


def check(holds: bool, what: str) -> None:
    """Raise ``UnreadableError`` where something does not hold."""
    if not holds:
        raise UnreadableError(what)


# --- frames --------------------------------------------------------------------------------------


class Frame(NamedTuple):
    """A frame's fields; each part is its word size and its planes put together again."""

    encoding: int
    dtype: str
    raw_length: int
    content: str
    base: str | None
    params: bytes
    parts: list[tuple[int, bytes]]
    transposition: tuple[int, int] | None = None


def parse_frame(data: bytes) -> Frame:
    """Take a frame apart."""
    magic, version, encoding, flags, part_count, length, raw_length = struct.unpack_from(
        "<4sBBBBQQ", data
    )
    is_right = magic == b"GTHF" and flags in (0, 1, 3) and length == len(data)
    check(is_right, "a frame is damaged")
    check(version == 1, f"a frame has version {version}, which a newer git-theta wrote")
    content, position = data[24:56].hex(), 56
    base = turned = None
    if flags & 1:
        base, position = data[56:88].hex(), 88
    if flags & 2:
        word, columns = struct.unpack_from("<BQ", data, position)
        turned, position = (word, columns), position + 9
    dtype, position = _counted(data, position, 1)
    params, position = _counted(data, position, 2)
    headers = []
    for _ in range(part_count):
        word, exponent, count = struct.unpack_from("<BBQ", data, position)
        planes = list(struct.iter_unpack("<BQ", data[position + 10 : position + 10 + 9 * word]))
        headers.append((exponent, count, planes))
        position += 10 + 9 * word
    parts = []
    for exponent, count, planes in headers:
        array = np.empty((count, len(planes)), np.uint8)
        for k, (method, stored) in enumerate(planes):
            array[:, k] = _plane(method, data[position : position + stored], count)
            position += stored
        if exponent:
            array = _sign_first(array, exponent)
        parts.append((len(planes), array.tobytes()))
    check(position == length, "a frame is damaged")
    return Frame(encoding, dtype.decode(), raw_length, content, base, params, parts, turned)


def _sign_first(array: np.ndarray, exponent: int) -> np.ndarray:
    width = array.shape[1]
    words, high = array.view(f"<u{width}"), 8 * width - 1
    low = words & (1 << high - exponent) - 1
    sign = words >> high - exponent & 1
    return (sign << high | words >> 1 & (1 << high) - (1 << high - exponent) | low).view(np.uint8)


def _counted(data: bytes, position: int, width: int) -> tuple[bytes, int]:
    start = position + width
    stop = start + int.from_bytes(data[position:start], "little")
    return data[start:stop], stop


def _plane(method: int, stored: bytes, count: int) -> np.ndarray:
    if method == 1:
        stored = zstandard.ZstdDecompressor().decompress(stored, max_output_size=count)
    elif method == 2:
        stored *= count
    check(len(stored) == count, "a plane of a frame is damaged")
    return np.frombuffer(stored, np.uint8)


def turn(frame: Frame, base: bytes) -> bytes:
    """Return the base as the frame wants it: as it is, or transposed."""
    if frame.transposition is None:
        return base
    word, columns = frame.transposition
    whole = word in (1, 2, 4, 8) and columns > 0 and base and not len(base) % (word * columns)
    check(bool(whole), "the base of a frame is not the matrix that it transposes")
    return np.frombuffer(base, f"<u{word}").reshape(-1, columns).T.tobytes()


# --- encodings -----------------------------------------------------------------------------------


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
    check(not rest, "the parameters of a delta are damaged")
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
    is_whole = set(states) == {1 << 16} and next(words, None) is None
    check(is_whole and len(bits) == (used + 7) // 8, "a delta is damaged")
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


def _pruned(frame: Frame, base: bytes) -> bytes:
    keeps_signs, threshold, number = struct.unpack_from("<BQB", frame.params)
    check(number in (1, 2), "a pruned frame is neither a delta nor sparse inside")
    old = np.frombuffer(base, f"<u{WIDTH[frame.dtype]}")
    sign = 1 << 8 * old.itemsize - 1
    bits = np.unpackbits(np.frombuffer(frame.parts[0][1], np.uint8), bitorder="little")
    gone = (old % sign < threshold) != bits[: old.size]
    words = np.where(gone, old // sign * sign * keeps_signs, old)
    inner = frame._replace(params=frame.params[10:], parts=frame.parts[1:])
    return DECODERS[number](inner, words.tobytes())


def _blocks(frame: Frame, base: bytes) -> bytes:
    fields = list(struct.iter_unpack("<BH", frame.params))
    check(len(fields) == len(frame.parts) > 0, "a blocks frame has not a part for each field")
    pieces = []
    for (word, count), (width, data) in zip(fields, frame.parts, strict=True):
        check(word == width and count > 0, "a field of a blocks frame is damaged")
        pieces.append(np.frombuffer(data, np.uint8).reshape(-1, word * count))
    return np.hstack(pieces).tobytes()


# RFC 1951, 3.2.5: extra bits of the codes for lengths and distances, and their smallest values.
LENGTH_BITS = [0] * 8 + [n // 4 for n in range(4, 24)] + [0]
LENGTHS = [3 + sum(1 << bits for bits in LENGTH_BITS[:code]) for code in range(28)] + [258]
DISTANCE_BITS = [0, 0] + [n // 2 for n in range(28)]
DISTANCES = [1 + sum(1 << bits for bits in DISTANCE_BITS[:code]) for code in range(30)]
ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)


def _deflate(frame: Frame, base: bytes) -> bytes:
    number, count, size = struct.unpack_from("<BBQ", frame.params)
    kind, rest = frame.params[10 : 10 + count].decode(), frame.params[10 + count :]
    check(number in (1, 2), "a deflate frame is neither a delta nor sparse inside")
    inner = frame._replace(dtype=kind, raw_length=size, params=rest, parts=frame.parts[5:])
    plain = DECODERS[number](inner, zlib.decompress(base, -15))
    headers, counts, gaps, lengths, distances = (data for _, data in frame.parts[:5])
    far = struct.unpack(f"<{len(lengths)}H", distances)
    matches = zip(_positions(gaps), lengths, far, strict=True)
    bits = np.unpackbits(np.frombuffer(headers, np.uint8), bitorder="little").astype(str)
    return _written("".join(bits), struct.unpack(f"<{len(counts) // 4}L", counts), matches, plain)


def _written(
    headers: str, counts: tuple[int, ...], matches: Iterator[tuple[int, int, int]], plain: bytes
) -> bytes:
    """The stream with blocks of so many tokens, as bits in the order of their values."""
    stream, token, at, position = [], 0, 0, 0
    place, length, distance = next(matches, (-1, 0, 0))
    for count in counts:
        start, (literals, distances, position) = position, _codes(headers, position)
        stream.append(headers[start:position])
        for _ in range(count):
            if token != place:
                stream.append(literals[plain[at]])
                at += 1
            else:
                length += 3
                before = max(0, at - 32768), max(0, at + length - 1)
                distance = distance or at - plain.rfind(plain[at : at + length], *before)
                stream.append(_pair(literals, 257, LENGTHS, LENGTH_BITS, length))
                stream.append(_pair(distances, 0, DISTANCES, DISTANCE_BITS, distance))
                at += length
                place, length, distance = next(matches, (-1, 0, 0))
            token += 1
        stream.append(literals[256])
    bits = np.frombuffer("".join(stream).encode(), np.uint8) - ord("0")
    return np.packbits(bits, bitorder="little").tobytes()


def _pair(
    codes: dict[int, str], first: int, values: list[int], extra: list[int], value: int
) -> str:
    code = max(code for code, least in enumerate(values) if least <= value)
    more = f"{value - values[code]:0{extra[code]}b}"[::-1] if extra[code] else ""
    return codes[first + code] + more


def _codes(bits: str, position: int) -> tuple[dict[int, str], dict[int, str], int]:
    """The codes for literals and distances that a block's header says, and where it ends."""

    def number(count: int) -> int:
        nonlocal position
        position += count
        return int(bits[position - count : position][::-1] or "0", 2)

    kind = number(3) >> 1
    check(kind in (1, 2), "a deflate frame has a block that is not coded")
    if kind == 1:
        return _huffman([8] * 144 + [9] * 112 + [7] * 24 + [8] * 8), _huffman([5] * 30), position
    literals, distances, count = number(5) + 257, number(5) + 1, number(4) + 4
    widths = [0] * 19
    for place in ORDER[:count]:
        widths[place] = number(3)
    symbols = {code: symbol for symbol, code in _huffman(widths).items()}
    found: list[int] = []
    while len(found) < literals + distances:
        code = ""
        while code not in symbols:
            check(len(code) < 8, "a deflate frame has bits that are not a code")
            code += bits[position]
            position += 1
        symbol = symbols[code]
        if symbol < 16:
            found.append(symbol)
        else:
            least, extra = {16: (3, 2), 17: (3, 3), 18: (11, 7)}[symbol]
            found += [found[-1] if symbol == 16 else 0] * (least + number(extra))
    return _huffman(found[:literals]), _huffman(found[literals:]), position


def _huffman(widths: list[int]) -> dict[int, str]:
    """The canonical codes of so many bits, first bit first; of 0 bits, none."""
    codes, code = {}, 0
    for width in range(1, 16):
        for symbol in [symbol for symbol, bits in enumerate(widths) if bits == width]:
            codes[symbol] = f"{code:0{width}b}"
            code += 1
        code <<= 1
    return codes


DECODERS: dict[int, Callable[[Frame, bytes], bytes]] = {
    0: _full,
    1: _delta,
    2: _sparse,
    3: _low_rank,
    4: _ia3,
    5: _cast,
    6: _blocks,
    7: _deflate,
    8: _pruned,
}


# --- the file ------------------------------------------------------------------------------------


def pieces(manifest: bytes, objects: Path) -> Iterator[bytes]:
    """Yield the bytes of the file that a manifest describes, from the objects below a folder."""
    check(manifest.startswith(PREFIX), "this is not a manifest of git-theta")
    head, skeleton_line, *lines = map(json.loads, manifest.splitlines())
    version = head["git-theta"]
    check(version == VERSION, f"the manifest has version {version}; this reads {VERSION}")
    rows = skeleton_line["skeleton"]
    tensors = [line for line in lines if "chunks" in line]
    check(_identity(tensors, rows) in (None, head["hash"]), "the manifest's hash is another one")
    skeleton = b"".join(chunk(row, objects) for row in rows)
    position, size = 0, 0
    for line in tensors:
        gap = line.get("gap", 0)
        for piece in (skeleton[position : position + gap], *_chunks(line, objects)):
            size += len(piece)
            yield piece
        position += gap
    yield skeleton[position:]
    check(size + len(skeleton[position:]) == head["size"], "the file has another size")


def _chunks(line: dict[str, Any], objects: Path) -> Iterator[bytes]:
    return (chunk(row, objects) for row in line["chunks"])


def rebuild(manifest: bytes, objects: Path) -> bytes:
    """Return the whole file."""
    return b"".join(pieces(manifest, objects))


def _identity(tensors: list[dict[str, Any]], skeleton: list[Any]) -> str | None:
    if blake3 is None:
        return None
    digest = blake3()
    for line in tensors:
        digest.update(struct.pack("<QQ", line.get("gap", 0), len(line["chunks"])))
        digest.update(b"".join(bytes.fromhex(row[1]) for row in line["chunks"]))
    digest.update(b"".join(bytes.fromhex(row[1]) for row in skeleton))
    return digest.hexdigest()


def chunk(row: list[Any], objects: Path) -> bytes:
    """Return a chunk, given its row in the manifest: the base of all bases is decoded first."""
    length, content, *refs = row
    raw, below = b"", None
    for ref in reversed(refs):
        frame = parse_frame(_fetch(ref, objects))
        check(frame.base == below, "a frame has another base than the manifest says")
        known = DECODERS.get(frame.encoding)
        check(known is not None, f"encoding {frame.encoding} is not known here")
        raw = DECODERS[frame.encoding](frame, turn(frame, raw))
        below = frame.content
        is_right = blake3 is None or blake3(raw).hexdigest() == frame.content
        check(is_right and len(raw) == frame.raw_length, "a chunk is not what its hash says")
    check((len(raw), below) == (length, content), "a chunk is not the one of the manifest")
    return raw


def _fetch(ref: list[Any], objects: Path) -> bytes:
    oid, size, *place = ref
    # As git-lfs lays objects out, and as git-theta does.
    files = (objects / oid[:2] / oid[2:4] / oid, objects / oid[:2] / oid)
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise UnreadableError(f"object {oid} is not below {objects}")
    data = file.read_bytes()
    is_right = len(data) == size and hashlib.sha256(data).hexdigest() == oid
    check(is_right, f"{file} is not what its name says")
    offset, length = place or (0, size)
    return data[offset : offset + length]


def write(manifest: bytes, objects: Path, target: Path) -> None:
    """Write the file to ``target``, which appears whole or not at all."""
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with scratch.open("xb") as output:
            for piece in pieces(manifest, objects):
                output.write(piece)
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


def main() -> None:
    """Run the command."""
    first, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path, help="the text that Git has in its place")
    parser.add_argument("objects", type=Path, help="the folder with the objects")
    parser.add_argument("file", type=Path, help="the checkpoint to write")
    given = parser.parse_args()
    if blake3 is None:
        print("blake3 is not installed: objects are checked, chunks are not", file=sys.stderr)
    try:
        write(given.manifest.read_bytes(), given.objects, given.file)
    except (UnreadableError, OSError, ValueError, KeyError, IndexError, struct.error) as error:
        sys.exit(f"{given.manifest}: {error}; nothing was written")


if __name__ == "__main__":
    main()
