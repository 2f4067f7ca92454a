"""Task vectors: what versions of a tensor added to a base, and their inner products."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from git_theta.commands.diff.changes import Tensor
from git_theta.commands.diff.floats import is_number, widen
from git_theta.commands.diff.values import Content
from git_theta.core.dtypes import dtype, element_count
from git_theta.core.registry import Bytes

Doubles = NDArray[np.float64]

# Elements of all versions that are widened at a time: they fit the L2 cache.
_BLOCK = 1 << 15


def are_comparable(tensors: Sequence[Tensor]) -> bool:
    """Tell whether changes between these versions are vectors: as many numbers, laid out alike."""
    first = tensors[0]
    return all(
        is_number(each.dtype)
        and (each.shape, each.view) == (first.shape, first.view)
        and each.size == element_count(each.shape) * dtype(each.dtype).bits // 8
        for each in tensors
    )


def gram(base: Tensor, versions: Sequence[Tensor], content: Content) -> Doubles:
    """Return the inner products (n, n) of what each version added to ``base``, in float64.

    Versions are read a chunk of each at a time. Elements that are not finite in any of them, or in
    the base, do not count. What ``content`` raises passes through.
    """
    total = np.zeros((len(versions), len(versions)))
    moved = [at for at, each in enumerate(versions) if each.content != base.content]
    if not moved:
        return total
    tensors = [base, *(versions[at] for at in moved)]
    for group in _aligned(tensors, content):
        total[np.ix_(moved, moved)] += _products(group, [each.dtype for each in tensors])
    return total


def _aligned(tensors: Sequence[Tensor], content: Content) -> Iterator[list[Bytes]]:
    """Yield the bytes of the same elements of every version."""
    cuts = {tuple(chunk.length for chunk in each.chunks) for each in tensors}
    if len(cuts) > 1:  # cut otherwise, or of another dtype
        yield [np.concatenate(content.read(each.chunks)) for each in tensors]
        return
    for chunks in zip(*(each.chunks for each in tensors), strict=True):
        yield content.read(chunks)


def _products(group: Sequence[Bytes], dtypes: Sequence[str]) -> Doubles:
    words = [dtype(name).word for name in dtypes]
    size = len(group) - 1
    total = np.zeros((size, size))
    step = max(1 << 10, _BLOCK // len(group))
    for first in range(0, group[0].size // words[0], step):
        base, *others = (
            widen(data[first * word : (first + step) * word], name)
            for data, word, name in zip(group, words, dtypes, strict=True)
        )
        with np.errstate(all="ignore"):
            changes = np.stack(others) - base
        if not np.isfinite(changes).all():
            changes = changes[:, np.isfinite(changes).all(axis=0)]
        total += changes @ changes.T
    return total
