"""Speed of encoding and decoding on one core: seconds of processor time, not of waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.checkpoint import read_header
from git_theta.checkpoint import chunk_encoder
from git_theta.checkpoint.chunk_decoder import Base
from git_theta.codec import Frame, decode_frame, encode_frame
from git_theta.core import registry
from git_theta.core.dtypes import dtype
from git_theta.core.hashes import Ref, content_hash
from git_theta.core.layout import Buffer, Geometry
from git_theta.core.registry import Encoding

_RUNS = 5


@dataclass(frozen=True)
class Pair:
    """A tensor of two versions of a checkpoint."""

    old: bytes
    new: bytes
    geometry: Geometry


def changed_tensors(base: Path, tip: Path) -> list[Pair]:
    """The tensors whose bytes differ between files of one layout."""
    pairs = []
    before, after = base.read_bytes(), tip.read_bytes()
    for tensor in read_header(base):
        here = slice(tensor.start, tensor.start + tensor.length)
        if before[here] != after[here]:
            geometry = Geometry(dtype(tensor.dtype), tensor.shape)
            pairs.append(Pair(before[here], after[here], geometry))
    return pairs


@dataclass(frozen=True)
class Rates:
    """MB/s of raw bytes on one core."""

    encoding: float
    """From raw bytes to a frame, in the encoding that is chosen in the end."""
    decoding: float
    """From a frame to raw bytes whose hash is right."""
    storing: float
    """Hashing, trying every encoding, decoding the best to compare it, compressing."""


def rates(pairs: Sequence[Pair]) -> Rates:
    """The best of some runs over all tensors; no file is touched."""
    size = sum(len(pair.new) for pair in pairs) / 1e6
    bases = [_base(pair) for pair in pairs]
    stored = [b"".join(_store(pair, base)) for pair, base in zip(pairs, bases, strict=True)]
    chosen = [_encoding(data) for data in stored]
    return Rates(
        encoding=size / _seconds(lambda: [*map(_encode, pairs, chosen)]),
        decoding=size / _seconds(lambda: [*map(_decode, pairs, chosen, stored)]),
        storing=size / _seconds(lambda: [*map(_store, pairs, bases)]),
    )


def _base(pair: Pair) -> Base:
    nowhere = Ref("0" * 64, 1, 0, 1)
    return Base(content_hash(pair.old), np.frombuffer(pair.old, np.uint8), (nowhere,))


def _store(pair: Pair, base: Base) -> list[Buffer]:
    return chunk_encoder.encode(pair.new, content_hash(pair.new), pair.geometry, base).frame


def _encoding(frame: bytes) -> Encoding:
    encoding = registry.encoding_numbered(decode_frame(frame).encoding)
    assert encoding is not None
    return encoding


def _encode(pair: Pair, encoding: Encoding) -> list[Buffer]:
    raw, base = (np.frombuffer(data, np.uint8) for data in (pair.new, pair.old))
    encoded = encoding.encode(raw, base, pair.geometry)
    assert encoded is not None
    name, nothing = pair.geometry.dtype.name, "0" * 64
    return encode_frame(Frame(encoding.number, name, raw.size, nothing, nothing, encoded))


def _decode(pair: Pair, encoding: Encoding, data: bytes) -> None:
    frame, base = decode_frame(data), np.frombuffer(pair.old, np.uint8)
    decoded = encoding.decode(frame.encoded, base, Geometry(pair.geometry.dtype), frame.raw_length)
    assert content_hash(decoded.data) == frame.content


def _seconds(work: Callable[[], object]) -> float:
    times = []
    for _ in range(_RUNS):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return min(times)
