"""What each stage of storing a chunk takes on one core, beside what the machine takes at least."""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from git_theta.checkpoint.chunk_decoder import Base
from git_theta.checkpoint.chunk_encoder import encode
from git_theta.core import registry
from git_theta.core.dtypes import dtype
from git_theta.core.hashes import Ref, content_hash
from git_theta.core.layout import Geometry
from git_theta.core.registry import ComparesWhileDecoding

_ROWS, _COLUMNS = 2048, 5504
_NOWHERE = (Ref("0" * 64, 1, 0, 1),)


@dataclass(frozen=True)
class Stage:
    """Median milliseconds for the chunk: of the clock, and of the processor."""

    name: str
    wall: float
    processor: float


def chunk_bytes() -> int:
    """Bytes of the chunk that is measured."""
    return 2 * _ROWS * _COLUMNS


def stages(folder: Path, noise: float, repetitions: int = 5) -> list[Stage]:
    """Measure reading, hashing, encoding, decoding, writing and syncing a bf16 matrix."""
    base, raw = (words.view(np.uint8) for words in _matrices(noise))
    source, target = folder / "chunk", folder / "copy"
    source.write_bytes(raw.data)
    geometry = Geometry(dtype("BF16"), (_ROWS, _COLUMNS))
    known = Base(content_hash(base.data), base, _NOWHERE)
    hash_ = content_hash(raw.data)
    delta = registry.encoding_named("delta")
    assert isinstance(delta, ComparesWhileDecoding)
    compared: ComparesWhileDecoding = delta
    encoded = delta.encode(raw, base, geometry)
    full = encode(raw.data, hash_, geometry, None)
    assert encoded is not None

    def write() -> None:
        with target.open("wb", buffering=0) as file:
            for piece in full.frame:
                file.write(piece)

    def copy() -> None:
        shutil.copyfile(source, target)
        _sync(target)

    def decoded() -> None:
        assert content_hash(delta.decode(encoded, base, geometry, raw.size).data) == hash_

    work: dict[str, Callable[[], object]] = {
        "floor: copy in memory": raw.copy,
        "read": source.read_bytes,
        "hash the content (BLAKE3)": lambda: content_hash(raw.data),
        "base: transform, code, frame": lambda: encode(raw.data, hash_, geometry, None),
        "fine-tune: choose, transform, code, compare": lambda: encode(
            raw.data, hash_, geometry, known
        ),
        "  of which transform and code": lambda: delta.encode(raw, base, geometry),
        "  of which decode and compare": lambda: compared.is_exact(encoded, base, geometry, raw),
        "checkout of it: decode, hash the content": decoded,
        "hash the object (SHA-256)": lambda: hashlib.sha256(raw.data).hexdigest(),
        "write the base's object": write,
        "sync it": lambda: _sync(target),
        "floor: cp and sync": copy,
    }
    return [_stage(name, each, repetitions) for name, each in work.items()]


def _matrices(noise: float) -> list[NDArray[np.uint16]]:
    generator = np.random.default_rng(0)
    values = generator.standard_normal(_ROWS * _COLUMNS, dtype=np.float32) * np.float32(0.02)
    change = generator.standard_normal(values.size, dtype=np.float32) * np.float32(noise)
    return [(each.view("<u4") >> 16).astype(np.uint16) for each in (values, values + change)]


def _stage(name: str, work: Callable[[], object], repetitions: int) -> Stage:
    walls, processors = [], []
    for _ in range(repetitions):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return Stage(name, 1e3 * statistics.median(walls), 1e3 * statistics.median(processors))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
