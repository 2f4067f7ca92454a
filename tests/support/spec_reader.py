"""A second reader of git-theta repositories, written from docs/spec.md and nothing else.

It imports nothing of git_theta. ``python spec_reader.py REPOSITORY REVISION FOLDER`` rebuilds every
checkpoint of a revision below a folder.
"""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zstandard
from blake3 import blake3


class Frame(NamedTuple):
    """A frame's fields; each part is its word size and its planes put together again."""

    encoding: int
    dtype: str
    raw_length: int
    content: str
    base: str | None
    params: bytes
    parts: list[tuple[int, bytes]]


def checkpoints(repository: Path, revision: str) -> Iterator[tuple[str, bytes]]:
    """Path and manifest of every checkpoint of a revision."""
    listing = _git(repository, "ls-tree", "-r", "-z", revision)
    for entry in filter(None, listing.split(b"\0")):
        meta, _, path = entry.partition(b"\t")
        _mode, kind, blob = meta.decode().split()
        if kind == "blob":
            content = _git(repository, "cat-file", "blob", blob)
            if content.startswith(b'{"git-theta":'):
                yield path.decode(), content


def rebuild(manifest: bytes, objects: Path) -> bytes:
    """The file that a manifest describes, from the objects below a folder."""
    head, skeleton_line, *lines = map(json.loads, manifest.splitlines())
    assert head["git-theta"] == 1
    skeleton = b"".join(_chunk(row, objects) for row in skeleton_line["skeleton"])
    pieces, position = [], 0
    for line in lines:
        if "chunks" in line:
            gap = line.get("gap", 0)
            pieces += [skeleton[position : position + gap]]
            pieces += [_chunk(row, objects) for row in line["chunks"]]
            position += gap
    file = b"".join([*pieces, skeleton[position:]])
    assert len(file) == head["size"]
    assert blake3(file).hexdigest() == head["hash"]
    return file


def parse_frame(data: bytes) -> Frame:
    """Take a frame apart."""
    magic, version, encoding, flags, part_count, length, raw_length = struct.unpack_from(
        "<4sBBBBQQ", data
    )
    assert (magic, version, flags & ~1, length) == (b"GTHF", 1, 0, len(data))
    content, position = data[24:56].hex(), 56
    base = None
    if flags & 1:
        base, position = data[56:88].hex(), 88
    dtype, position = _counted(data, position, 1)
    params, position = _counted(data, position, 2)
    headers = []
    for _ in range(part_count):
        word, count = struct.unpack_from("<BQ", data, position)
        planes = list(struct.iter_unpack("<BQ", data[position + 9 : position + 9 + 9 * word]))
        headers.append((count, planes))
        position += 9 + 9 * word
    parts = []
    for count, planes in headers:
        array = np.empty((count, len(planes)), np.uint8)
        for k, (method, stored) in enumerate(planes):
            array[:, k] = _plane(method, data[position : position + stored], count)
            position += stored
        parts.append((len(planes), array.tobytes()))
    assert position == length
    return Frame(encoding, dtype.decode(), raw_length, content, base, params, parts)


def _counted(data: bytes, position: int, width: int) -> tuple[bytes, int]:
    start = position + width
    stop = start + int.from_bytes(data[position:start], "little")
    return data[start:stop], stop


def _plane(method: int, stored: bytes, count: int) -> np.ndarray:
    if method == 1:
        stored = zstandard.ZstdDecompressor().decompress(stored, max_output_size=count)
    elif method == 2:
        stored *= count
    assert len(stored) == count
    return np.frombuffer(stored, np.uint8)


def _chunk(row: list[Any], objects: Path) -> bytes:
    """A chunk from its row: the base of all bases first."""
    length, content, *refs = row
    raw, below = b"", None
    for ref in reversed(refs):
        frame = parse_frame(_fetch(ref, objects))
        assert frame.base == below
        raw = DECODERS[frame.encoding](frame, raw)
        below = frame.content
        assert len(raw) == frame.raw_length
        assert blake3(raw).hexdigest() == frame.content
    assert (len(raw), below) == (length, content)
    return raw


def _fetch(ref: list[Any], objects: Path) -> bytes:
    oid, size, *place = ref
    data = (objects / oid[:2] / oid).read_bytes()
    assert len(data) == size
    assert hashlib.sha256(data).hexdigest() == oid
    offset, length = place or (0, size)
    return data[offset : offset + length]


# --- encodings -----------------------------------------------------------------------------------

WIDTH = {"F64": 8, "I64": 8, "U64": 8, "C128": 8, "F32": 4, "I32": 4, "U32": 4, "C64": 4}
WIDTH |= {"F16": 2, "BF16": 2, "I16": 2, "U16": 2}
ORDERED = {"F64", "F32", "F16", "BF16", "C64", "C128"}
ORDERED |= {"F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"}


def _words(frame: Frame, base: bytes) -> tuple[np.ndarray, bool]:
    """The words of the fitted base (a copy), and whether they are ordered."""
    width, ordered = WIDTH.get(frame.dtype, 1), frame.dtype in ORDERED
    if frame.raw_length % width:
        width, ordered = 1, False
    fitted = bytearray(base[: frame.raw_length].ljust(frame.raw_length, b"\0"))
    return np.frombuffer(fitted, f"<u{width}"), ordered


def _rank(words: np.ndarray, ordered: bool) -> np.ndarray:
    bits = 8 * words.itemsize
    negative = words >> np.array(bits - 1, words.dtype) == 1
    return np.where(negative & ordered, words ^ np.array(2 ** (bits - 1) - 1, words.dtype), words)


def _apply(old: np.ndarray, differences: np.ndarray, ordered: bool) -> np.ndarray:
    one = np.array(1, old.dtype)
    step = (differences >> one) ^ (~(differences & one) + one)
    return _rank(_rank(old, ordered) + step, ordered)


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


def _delta(frame: Frame, base: bytes) -> bytes:
    old, ordered = _words(frame, base)
    differences = np.frombuffer(frame.parts[-1][1], old.dtype)
    if frame.params == b"\1":
        pairs = np.frombuffer(frame.parts[0][1], np.uint8)
        halves = np.stack([pairs & 15, pairs >> 4], axis=1).reshape(-1)[: old.size]
        wide, differences = differences, halves.astype(old.dtype)
        differences[halves == 15] = wide
    return _apply(old, differences, ordered).tobytes()


def _sparse(frame: Frame, base: bytes) -> bytes:
    words, ordered = _words(frame, base)
    (_, gaps), (_, stored) = frame.parts
    changed = np.fromiter(_positions(gaps), np.int64)
    words[changed] = _apply(words[changed], np.frombuffer(stored, words.dtype), ordered)
    return words.tobytes()


DECODERS: dict[int, Callable[[Frame, bytes], bytes]] = {0: _full, 1: _delta, 2: _sparse}


def _git(repository: Path, *arguments: str) -> bytes:
    return subprocess.run(
        ["git", *arguments], cwd=repository, check=True, capture_output=True
    ).stdout


def main(repository: Path, revision: str, folder: Path) -> None:
    """Rebuild every checkpoint of a revision."""
    common = _git(repository, "rev-parse", "--path-format=absolute", "--git-common-dir")
    for path, manifest in checkpoints(repository, revision):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(rebuild(manifest, Path(common.decode().strip()) / "theta" / "objects"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
