"""How good a base is for a chunk, by what encoding samples of both would take."""

from __future__ import annotations

import numpy as np

from git_theta.checkpoint.chunk_decoder import Base
from git_theta.checkpoint.chunking import RawChunk
from git_theta.codec import estimate
from git_theta.core import registry
from git_theta.core.arrays import Bytes
from git_theta.core.layout import Geometry

# A link costs a read and a decode, so it must save this share of the bytes.
_GAIN_PER_LINK = 0.02
_SAMPLE = 64 << 10
_SAMPLES = 4


def closer(bottom: Base, top: Base, raw: RawChunk) -> Base:
    """Return the bottom of a chain, unless its top is so much closer that its links pay off."""
    if bottom is top:
        return bottom
    links = len(top.chain) - len(bottom.chain)
    below = cost(bottom, raw) * (1 - _GAIN_PER_LINK * links)
    return bottom if below <= cost(top, raw) else top


def is_close(base: Base, raw: RawChunk) -> bool:
    """Return whether ``base`` makes a sample of ``raw`` smaller, by more than a link costs."""
    sample = np.concatenate(_samples(_bytes(raw), len(raw.data)))
    plain = registry.encoding_named("full").encode(sample, None, Geometry(raw.geometry.dtype))
    assert plain is not None
    return cost(base, raw) < estimate(plain.parts) * (1 - _GAIN_PER_LINK * len(base.chain))


def cost(base: Base, raw: RawChunk) -> int:
    """Return how many bytes a sample of ``raw`` takes as a delta to ``base``, or a cast of it."""
    length, size = len(raw.data), base.data.size
    shared = min(length, size)
    costs = [_cost("delta", raw, shared, base, shared)]
    if size in (length // 4, length // 2, length, 2 * length, 4 * length):
        costs.append(_cost("cast", raw, length, base, size))
    return min(costs)


def _cost(encoding: str, raw: RawChunk, length: int, base: Base, size: int) -> int:
    now = np.concatenate(_samples(_bytes(raw), length))
    before = np.concatenate(_samples(base.data, size, size / length))
    geometry = Geometry(raw.geometry.dtype)
    encoded = registry.encoding_named(encoding).encode(now, before, geometry)
    return estimate(encoded.parts) if encoded else now.size


def _bytes(raw: RawChunk) -> Bytes:
    return np.frombuffer(raw.data, np.uint8)


def _samples(data: Bytes, length: int, scale: float = 1) -> list[Bytes]:
    """Return samples of the first ``length`` bytes, of which there are ``scale`` as many."""
    size = int(_SAMPLE * scale)
    # Whole words, wherever a sample begins, also of a base with smaller ones.
    step = int(max(_SAMPLE, int(length / scale) // _SAMPLES & ~63) * scale)
    return [data[start : min(start + size, length)] for start in range(0, length, step)]
