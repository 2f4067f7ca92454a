"""Speed of encoding and decoding on one core: seconds of processor time, not of waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from _lib.checkpoint import read_header
from git_theta import chunks, registry
from git_theta.chunks import Base
from git_theta.codec import decode_frame
from git_theta.ids import Ref, content_hash
from git_theta.tensor import Geometry, dtype

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


def rates(pairs: Sequence[Pair]) -> tuple[float, float]:
    """MB/s of encoding and of decoding: the best of some runs over all tensors.

    Encoding is hashing, trying every encoding, checking that the best decodes to the same bits,
    and compressing. Decoding is the reverse with the hash verified. Files are not touched.
    """
    size = sum(len(pair.new) for pair in pairs)
    frames = [b"".join(_encode(pair)) for pair in pairs]
    encoding = _seconds(lambda: [_encode(pair) for pair in pairs])
    decoding = _seconds(lambda: list(map(_decode, frames, pairs)))
    return size / encoding / 1e6, size / decoding / 1e6


def _encode(pair: Pair) -> list[bytes]:
    base = Base(content_hash(pair.old), np.frombuffer(pair.old, np.uint8), (_NOWHERE,))
    encoded = chunks.encode(pair.new, content_hash(pair.new), pair.geometry, base)
    return [bytes(buffer) for buffer in encoded.frame]


def _decode(data: bytes, pair: Pair) -> None:
    frame = decode_frame(data)
    encoding = registry.encoding_numbered(frame.encoding)
    assert encoding is not None
    base = np.frombuffer(pair.old, np.uint8)
    decoded = encoding.decode(frame.encoded, base, Geometry(pair.geometry.dtype), frame.raw_length)
    assert content_hash(decoded.data) == frame.content


def _seconds(work: Callable[[], object]) -> float:
    times = []
    for _ in range(_RUNS):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return min(times)


_NOWHERE = Ref("0" * 64, 1, 0, 1)
