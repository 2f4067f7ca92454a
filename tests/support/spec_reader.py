"""A second reader of git-theta repositories, written from docs/spec.md and nothing else.

It and ``spec_encodings.py`` import nothing of git_theta. ``python -m tests.support.spec_reader
REPOSITORY REVISION FOLDER`` rebuilds every checkpoint of a revision below a folder.
"""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from blake3 import blake3

from tests.support.spec_encodings import DECODERS, Frame


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
    assert _identity(lines, skeleton_line["skeleton"]) == head["hash"]
    return file


def _identity(lines: list[dict[str, Any]], skeleton: list[Any]) -> str:
    digest = blake3()
    for line in lines:
        if "chunks" in line:
            digest.update(struct.pack("<QQ", line.get("gap", 0), len(line["chunks"])))
            digest.update(b"".join(bytes.fromhex(row[1]) for row in line["chunks"]))
    digest.update(b"".join(bytes.fromhex(row[1]) for row in skeleton))
    return digest.hexdigest()


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
    assert position == length
    return Frame(encoding, dtype.decode(), raw_length, content, base, params, parts)


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
