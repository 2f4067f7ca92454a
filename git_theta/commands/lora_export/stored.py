"""The factors that a change is stored with: those of the adapter that was added, word for word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from git_theta.adapters import Stored
from git_theta.codec import decode_frame
from git_theta.commands.diff.changes import Tensor
from git_theta.core import registry
from git_theta.core.hashes import Ref
from git_theta.encodings.factors import INTEGERS, Factors, Matrix
from git_theta.encodings.float_formats import FORMATS, narrow
from git_theta.encodings.low_rank import read_factors
from git_theta.manifest import Chunk
from git_theta.store import ObjectStore

_SINGLE = FORMATS["F32"]


@dataclass(frozen=True, slots=True)
class StoredFactors:
    """The change ``scale`` times ``left`` (r, rows) transposed times ``right`` (r, columns)."""

    left: Stored
    right: Stored
    scale: float


def stored_factors(old: Tensor, new: Tensor, store: ObjectStore) -> StoredFactors | None:
    """Return the factors of a tensor that is stored as its old version and low-rank changes.

    Several one after another are put together. ``None`` where it is stored otherwise. The objects
    are here, and were verified when the tensor was decoded.
    """
    if len(old.chunks) != len(new.chunks):
        return None
    rows = [_changes(*pair, store) for pair in zip(old.chunks, new.chunks, strict=True)]
    chunks = [row for row in rows if row]
    if len(chunks) != len(rows) or len({len(row) for row in chunks}) != 1:
        return None
    steps = [_joined([row[at] for row in chunks]) for at in range(len(chunks[0]))]
    found = [step for step in steps if step]
    if len(found) != len(steps):
        return None
    return found[0] if len(found) == 1 else _stacked(found)


def _changes(old: Chunk, new: Chunk, store: ObjectStore) -> list[Factors] | None:
    """Return the factors that lead from one version of a chunk to the other."""
    count = len(new.chain) - len(old.chain)
    if count < 1 or new.chain[count:] != old.chain:
        return None
    found = [_factors(ref, store) for ref in new.chain[:count]]
    return None if None in found else [each for each in found if each]


def _factors(ref: Ref, store: ObjectStore) -> Factors | None:
    frame = decode_frame(store.read(ref))
    encoding = registry.encoding_numbered(frame.encoding)
    if encoding is None or encoding.name != "low-rank" or frame.transposition:
        return None
    return read_factors(frame.encoded)[0]


def _joined(chunks: Sequence[Factors]) -> StoredFactors | None:
    """Return the factors of all rows, of chunks that have the same right factor and scales."""
    first, *others = chunks
    for each in others:
        same = each.left.dtype == first.left.dtype and each.right.dtype == first.right.dtype
        if not same or each.right.words.shape != first.right.words.shape:
            return None
        if (each.right.words != first.right.words).any() or (each.scales != first.scales).any():
            return None
    left = Matrix(first.left.dtype, np.hstack([each.left.words for each in chunks]))
    if _is_float(first) and (first.scales == first.scales[0]).all():
        right = Stored(first.right.dtype, first.right.words)
        return StoredFactors(Stored(left.dtype, left.words), right, float(first.scales[0]))
    scaled = left.values() * first.scales[:, None]
    return StoredFactors(_single(scaled), _single(first.right.values()), 1.0)


def _is_float(factors: Factors) -> bool:
    return factors.left.dtype not in INTEGERS and factors.right.dtype == factors.left.dtype


def _stacked(steps: Sequence[StoredFactors]) -> StoredFactors:
    lefts = [each.scale * _values(each.left) for each in steps]
    rights = [_values(each.right) for each in steps]
    return StoredFactors(_single(np.vstack(lefts)), _single(np.vstack(rights)), 1.0)


def _values(matrix: Stored) -> np.ndarray:
    return Matrix(matrix.dtype, matrix.words).values()


def _single(values: np.ndarray) -> Stored:
    return Stored("F32", narrow(values, _SINGLE))
