"""Tell whether a change is of low rank but for rounding, from samples and at little cost.

Rounding is noise of known size: singular values of noise alone do not exceed (sqrt(rows) +
sqrt(columns)) * sigma. What exceeds it is signal. The rest may be a little more than rounding (two
roundings, where base and actual were both rounded from finer numbers); where it is much more, the
change is dense.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from git_theta.encodings.change import Change, noise_scales, spread
from git_theta.encodings.float_formats import Doubles, Floats

# A square sample of 16 more shows such a rank, and OpenBLAS works on it without its threads, which
# on a busy machine made 3 ms into 300.
MAX_RANK = 80
_FIRST, _SECOND = 96, 256
# Singular values of the rounding of real weights reached 0.95 to 1.01 of the bound.
_MARGIN = 1.25
# The error of singular values themselves, relative to the largest.
_PRECISION = 1e-14
_ROUNDING = 1 / math.sqrt(12)
# Two roundings are 1.41.
_NOISIEST = 2.0
# The same in the small sample. Merged LoRAs: 0.97 to 1.05; dense bf16 fine-tunes, whose change may
# well be of low rank for the most part: 1.74 and more, 1.56 where that is not so.
_NOISIEST_AT_FIRST = 1.6
# Below this share of changed elements the sparse encoding is the better one.
_FEW = 0.02
# A change this many times as strong as what factors leave of it in a small sample. Merged LoRAs:
# 1.55 and more; bf16 fine-tunes: 1.0 to 1.5, a few to 2.4.
_STRONG = 1.5
# What factors leave of a change, by entropy. Merged LoRAs: 0.12 to 0.56, bf16 fine-tunes 0.64 and
# more, where factors would save 20 % at a tenth of the speed.
_LEFT = 0.6


@dataclass(frozen=True, slots=True)
class Signal:
    """The rank of a change, and its noise as a multiple of that of rounding.

    Less than 1 is the noise of a change that mostly is too small for the rounding to show it.
    """

    rank: int
    noise: float


def rank_limit(rows: int, columns: int) -> int:
    """Return the highest rank that is worth storing as factors."""
    return min(MAX_RANK, min(rows, columns) // 4)


def find_signal(change: Change) -> Signal | None:
    """Return the signal in a change; ``None`` where that is not clearly of low rank.

    A dense change is mostly told by the singular values of a small sample, in 1 ms; what passes
    is looked at again in a larger one, in 10 ms.
    """
    limit = rank_limit(*change.shape)
    if limit == 0 or not _stands_out(change, limit):
        return None
    difference, grid = _sample(change, min(2 * limit + 32, _SECOND))
    across, down = noise_scales(grid)
    scaled = difference / across / down
    left, values, right = np.linalg.svd(scaled, full_matrices=False)
    signal = _signal(values, difference.shape)
    lines = min(_loud_lines(scaled, axis, signal.noise) for axis in (0, 1))
    # About as many changed rows as the rank: each changed in its own way.
    if not 0 < signal.rank <= min(limit, lines // 2) or signal.noise > _NOISIEST:
        return None
    fitted = (left[:, : signal.rank] * values[: signal.rank]) @ right[: signal.rank]
    before, after = difference / grid, (difference - fitted * across * down) / grid
    return signal if _entropy(after) < _LEFT * _entropy(before) else None


def _stands_out(change: Change, limit: int) -> bool:
    """Return whether a small sample shows more than noise and less than full rank."""
    difference, grid = _sample(change, min(limit + 16, _FIRST))
    if np.count_nonzero(difference) < _FEW * difference.size:
        return False
    across, down = noise_scales(grid)
    scaled = difference / across / down
    if _is_dense(scaled, limit):
        return False
    signal = _signal(np.linalg.svd(scaled, compute_uv=False), difference.shape)
    power = math.sqrt(np.mean(np.square(scaled)))
    is_strong = power >= _STRONG * signal.noise * _ROUNDING
    return 0 < signal.rank <= limit and signal.noise <= _NOISIEST_AT_FIRST and is_strong


def _is_dense(scaled: Doubles, limit: int) -> bool:
    """Return whether more than the most noise is left of some columns by as many as the limit.

    That is more than the best factors would leave, and takes a tenth of the time of singular
    values: nearly all dense changes of float32 are told by it.
    """
    triangle = np.asarray(np.linalg.qr(scaled, mode="r"))
    rest = triangle[limit:, limit:]
    noise = math.sqrt(np.sum(np.square(rest)) / math.prod(size - limit for size in scaled.shape))
    return noise > _NOISIEST * _MARGIN * _ROUNDING


def _loud_lines(scaled: Doubles, axis: int, noise: float) -> int:
    """Count the lines along ``axis`` that changed by clearly more than noise."""
    energies = np.mean(np.square(scaled), axis=axis)
    return int(np.count_nonzero(energies > 2 * (noise * _ROUNDING) ** 2))


def _sample(change: Change, side: int) -> tuple[Doubles, Doubles]:
    return change.at(*(spread(size, side) for size in change.shape))


def _signal(values: Floats, shape: tuple[int, ...]) -> Signal:
    """Return the signal, judged by all singular values of an evenly scaled change."""
    noise = 1.0
    for _ in range(4):  # Settles in two or three: more noise, fewer values above it.
        rank = rank_above(values, shape, noise)
        rest = math.prod(size - rank for size in shape)
        if rest == 0:
            break
        noise = math.sqrt(np.sum(np.square(values[rank:])) / rest) / _ROUNDING
    return Signal(rank, noise)


def rank_above(values: Floats, shape: tuple[int, ...], noise: float) -> int:
    """Count the singular values of an evenly scaled change that are more than ``noise``."""
    bound = _MARGIN * max(noise, 1.0) * _ROUNDING * sum(map(math.sqrt, shape))
    return int(np.count_nonzero(values > max(bound, _PRECISION * values[0])))


def _entropy(steps: Doubles) -> float:
    """Bits per element of whole numbers near ``steps``."""
    _, counts = np.unique(np.rint(steps), return_counts=True)
    shares = counts / steps.size
    return float(-np.sum(shares * np.log2(shares)))
