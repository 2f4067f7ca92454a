"""How one byte plane is stored: raw, one constant byte, or a zstd frame.

The method is chosen from a sample of the plane, so the choice and the stored bytes depend on the
plane alone (and on the version of zstd).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np
import zstandard
from numpy.typing import NDArray

from git_theta.codec import planes
from git_theta.core.layout import Buffer
from git_theta.errors import CorruptObjectError

Bytes = NDArray[np.uint8]

RAW, ZSTD, CONSTANT = 0, 1, 2

# Of the whole plane, in favour of storing it raw: decoding a plane that shrinks by less than this
# costs more time than its transfer.
_WORTH = 0.99

# Of a sample, one in so many blocks. Level 1 takes 1.3 ms for a whole sample of a plane, on which
# most often the other compressor is better.
_SPARSELY = 4

# zstd as a pure Huffman coder. On the exponents of real bf16 weights: 0.3419 of the plane at 520
# MB/s, where level 1 needs 0.3697 at 200 MB/s (its matches only disturb the statistics) and
# order-0 entropy is 0.3418.
_HUFFMAN = {
    "strategy": zstandard.STRATEGY_FAST,
    "window_log": 17,
    "hash_log": 6,
    "chain_log": 6,
    "search_log": 1,
    "min_match": 7,
    "target_length": 0,
}


class _Contexts(threading.local):
    """zstd contexts, which no two threads may use at once."""

    def __init__(self) -> None:
        params = zstandard.ZstdCompressionParameters(**_HUFFMAN)
        self.compressors = (
            zstandard.ZstdCompressor(compression_params=params),
            zstandard.ZstdCompressor(level=1),
        )
        self.decompressor = zstandard.ZstdDecompressor()


_contexts = _Contexts()


def pack(plane: Bytes, is_coded: bool = False) -> tuple[int, Buffer]:
    """Return the method and the stored bytes of ``plane``; the bytes may share its memory.

    A plane that ``is_coded`` is stored as it is.
    """
    if plane.size == 0:
        return RAW, b""
    if _is_constant(plane):
        return CONSTANT, plane[:1].tobytes()
    stored = None if is_coded else _compress(plane)
    return (RAW, plane.data) if stored is None or len(stored) >= plane.size else (ZSTD, stored)


def is_possible(method: int, stored: int, count: int) -> bool:
    """Return whether ``method`` may bring a plane of ``count`` bytes to ``stored`` bytes."""
    if method == RAW:
        return stored == count
    if method == ZSTD:
        return 0 < stored < count
    return method == CONSTANT and stored == 1 and count > 0


def unpack(method: int, stored: memoryview, count: int) -> Bytes:
    """Return the ``count`` bytes of a plane, read-only, from what ``pack`` gave.

    ``is_possible`` must hold. Raises ``CorruptObjectError`` when a zstd frame is not one of
    exactly ``count`` bytes.
    """
    if method == ZSTD:
        return np.frombuffer(_decompress(stored, count), np.uint8)
    if method == CONSTANT:
        return np.full(count, stored[0], np.uint8)
    return np.frombuffer(stored, np.uint8)


def predict(sample: Bytes) -> float:
    """Return the share of its size to which ``pack`` brings a plane, from a sample of it."""
    if sample.size == 0 or _is_constant(sample):
        return 0.0
    return min(1.0, _trial(sample, _WORTH)[0])


def _is_constant(plane: Bytes) -> bool:
    # The two ends first: most planes are told apart without a pass over them.
    return bool(plane[0] == plane[-1]) and bool((plane == plane[0]).all())


def _compress(plane: Bytes) -> bytes | None:
    """Return a zstd frame; ``None`` where a sample of the plane hardly shrinks."""
    if plane.size <= planes.SAMPLE_WORDS * planes.SAMPLE_BLOCKS:
        return min((c.compress(plane.data) for c in _contexts.compressors), key=len)
    share, compressor = _trial(planes.sample(plane, 1))
    return compressor.compress(plane.data) if share < _WORTH else None


def _trial(sample: Bytes, enough: float = 2.0) -> tuple[float, zstandard.ZstdCompressor]:
    """Return the better compressor, and the share of its size to which it brings the sample.

    Block by block, as zstd too compresses each neighbourhood with statistics of its own. A part of
    the blocks tells which compressor is the better one, and, where they shrink to no less than
    ``enough``, the share: three planes of four in float32 are noise.
    """
    blocks = [
        sample[start : start + planes.SAMPLE_WORDS].data
        for start in range(0, sample.size, planes.SAMPLE_WORDS)
    ]
    few = blocks[::_SPARSELY]
    least, best = min(
        ((_compressed(each, few), each) for each in _contexts.compressors), key=lambda each: each[0]
    )
    share = least / sum(map(len, few))
    return (share if share >= enough else _compressed(best, blocks) / sample.size), best


def _compressed(compressor: zstandard.ZstdCompressor, blocks: Iterable[memoryview]) -> int:
    return sum(len(compressor.compress(block)) for block in blocks)


def _decompress(stored: memoryview, count: int) -> bytes:
    try:
        # The size that the frame states is what the decompressor allocates: check it first.
        parameters = zstandard.get_frame_parameters(stored)
        if parameters.content_size != count or parameters.dict_id:
            raise CorruptObjectError(f"plane does not decompress to {count} bytes")
        return _contexts.decompressor.decompress(stored, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CorruptObjectError(f"plane of {count} bytes does not decompress: {error}") from error
