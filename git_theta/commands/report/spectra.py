"""Singular values of changes: few large ones are a low-rank update, a slow fall a dense one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from git_theta.commands.diff.adapters import ProductChange, product_changes
from git_theta.commands.diff.changes import Tensor, TensorChange, compare_tensors
from git_theta.commands.diff.products import cores, read_factors
from git_theta.commands.diff.rows import Measured
from git_theta.commands.diff.segments import Content
from git_theta.commands.diff.versions import Pair
from git_theta.commands.lora_export.svd import leading
from git_theta.commands.task_vectors import aligned, changes_in
from git_theta.core.dtypes import element_count
from git_theta.encodings.float_formats import FORMATS

SHOWN = 4
"""Matrices whose singular values are computed: those that changed most, relative to themselves."""

COUNT = 32
"""Singular values of each."""

# Elements. A matrix is in memory as float32: 256 MB; where it is narrow, so are its factors.
_LARGEST = 1 << 26
_LARGEST_NARROW = 1 << 23
_NARROW = 384


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The largest singular values of the change of a matrix, in falling order."""

    name: str
    values: tuple[float, ...]


def largest(found: Sequence[Measured]) -> list[str]:
    """Return the names of the matrices that changed most, relative to what they were."""
    fit = [each for each in found if _fits(each)]
    fit.sort(key=lambda each: -((each.sums and each.sums.relative) or 0.0))
    return [each.change.name for each in fit[:SHOWN]]


def _fits(each: Measured) -> bool:
    old, new = each.change.old, each.change.new
    if old is None or new is None or not each.sums or not each.sums.relative:
        return False
    if len(new.shape) < 2 or old.shape != new.shape:
        return False
    if each.sums.largest is None:  # a product, whose factors are read
        return True
    narrow = min(new.shape[0], element_count(new.shape[1:])) <= _NARROW
    size = element_count(new.shape)
    plain = all(t.dtype in FORMATS and t.is_plain for t in (old, new))
    return plain and size <= (_LARGEST_NARROW if narrow else _LARGEST)


def spectra(pair: Pair, names: Sequence[str]) -> list[Spectrum]:
    """Return the singular values of the changes of these tensors or modules of a checkpoint.

    What did not change in it, changes with NaNs or infinities, and versions that Git holds whole
    are left out.
    """
    changes = compare_tensors(pair.old.manifest, pair.new.manifest)
    products = {each.change.name: each for each in product_changes(pair, changes)}
    tensors = {change.name: change for change in changes}
    found = []
    for name in names:
        change = products.get(name) or tensors.get(name)
        values = _values(pair, change) if change else None
        if values is not None and values.size and values[0] > 0:
            found.append(Spectrum(name, tuple(map(float, values[:COUNT]))))
    return found


def _values(pair: Pair, change: ProductChange | TensorChange) -> NDArray[np.floating] | None:
    try:
        if isinstance(change, ProductChange):
            sides = ((change.old, pair.old), (change.new, pair.new))
            old, new = cores([read_factors(each, side.content) for each, side in sides])
            return np.linalg.svd(new - old, compute_uv=False)
        if change.old is None or change.new is None or pair.old.content is not pair.new.content:
            return None
        matrix = _difference(change.old, change.new, pair.new.content)
        return None if matrix is None else leading(matrix, COUNT)[1]
    except np.linalg.LinAlgError:  # numbers so far apart that squares overflow
        return None


def _difference(old: Tensor, new: Tensor, content: Content) -> NDArray[np.float32] | None:
    """Return the change as a matrix; ``None`` where it is not finite."""
    matrix = np.empty(element_count(new.shape), np.float32)
    filled = 0
    for stretch in aligned([old, new]):
        for (block,) in changes_in(stretch, (old.dtype, new.dtype), content):
            with np.errstate(over="ignore"):
                matrix[filled : filled + block.size] = block
            filled += block.size
    whole = filled == matrix.size and bool(np.isfinite(matrix).all())
    return matrix.reshape(new.shape[0], -1) if whole else None
