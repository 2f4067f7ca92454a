"""How good a base is for a chunk, by what encoding samples of both would take."""

from __future__ import annotations

import numpy as np

from git_theta.checkpoint.chunk_decoder import Base
from git_theta.checkpoint.chunking import RawChunk
from git_theta.codec import estimate
from git_theta.core import registry
from git_theta.core.layout import Geometry
from git_theta.core.registry import Bytes

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
    """Return about how many bytes a sample of ``raw`` takes as a delta to ``base``."""
    length = min(base.data.size, len(raw.data))
    now, before = (np.concatenate(_samples(data, length)) for data in (_bytes(raw), base.data))
    encoded = registry.encoding_named("delta").encode(now, before, Geometry(raw.geometry.dtype))
    return estimate(encoded.parts) if encoded else now.size


def _bytes(raw: RawChunk) -> Bytes:
    return np.frombuffer(raw.data, np.uint8)


def _samples(data: Bytes, length: int) -> list[Bytes]:
    # Whole words, wherever a sample begins.
    starts = range(0, length, max(_SAMPLE, length // _SAMPLES) & ~7)
    return [data[start : min(start + _SAMPLE, length)] for start in starts]
