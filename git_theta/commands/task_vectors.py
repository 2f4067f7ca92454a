"""Task vectors: what versions of a tensor added to a base, and their inner products."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from git_theta.commands.diff.changes import Tensor
from git_theta.commands.diff.floats import is_number, widen
from git_theta.commands.diff.segments import Content
from git_theta.core.arrays import Bytes
from git_theta.core.dtypes import dtype, element_count
from git_theta.manifest import Chunk

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
    for stretch in aligned(tensors):
        for changes in changes_in(stretch, [each.dtype for each in tensors], content):
            total[np.ix_(moved, moved)] += changes @ changes.T
    return total


Stretch = tuple[tuple[Chunk, ...], ...]
"""Chunks of each version that hold the same elements."""


def aligned(tensors: Sequence[Tensor]) -> Iterator[Stretch]:
    """Yield the chunks of all versions, those of the same elements together."""
    cuts = {tuple(chunk.length for chunk in each.chunks) for each in tensors}
    if len(cuts) > 1:  # cut otherwise, or of another dtype
        yield tuple(each.chunks for each in tensors)
        return
    for chunks in zip(*(each.chunks for each in tensors), strict=True):
        yield tuple((chunk,) for chunk in chunks)


def changes_in(stretch: Stretch, dtypes: Sequence[str], content: Content) -> Iterator[Doubles]:
    """Yield what all versions but the first added to it: blocks (n - 1, elements), in order.

    Elements that are not finite in any version are left out.
    """
    words = [dtype(name).word for name in dtypes]
    group = read(stretch, content)
    step = max(1 << 10, _BLOCK // len(group))
    for first in range(0, group[0].size // words[0], step):
        base, *others = (
            widen(data[first * word : (first + step) * word], name)
            for data, word, name in zip(group, words, dtypes, strict=True)
        )
        with np.errstate(all="ignore"):
            changes = np.stack(others) - base
        finite = np.isfinite(changes)
        yield changes if finite.all() else changes[:, finite.all(axis=0)]


def read(stretch: Stretch, content: Content) -> list[Bytes]:
    """Return the bytes of each version; not to be written to."""
    if all(len(chunks) == 1 for chunks in stretch):
        # A difference is decoded with its base, which mostly is another of the versions.
        return content.read([chunk for (chunk,) in stretch])
    return [np.concatenate(content.read(chunks)) for chunks in stretch]
