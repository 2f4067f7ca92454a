"""A tensor, or a part of it, as the bytes that have to be read for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Generic

import numpy as np

from git_theta.api.files import Range
from git_theta.api.frameworks import Framework, T, View
from git_theta.core.arrays import Bytes
from git_theta.core.dtypes import DTYPES, element_count
from git_theta.core.layout import TensorSpan


class TensorSlice(Generic[T]):
    """A tensor that is read when it is indexed: ``checkpoint.get_slice(name)[10:20, :5]``.

    An index or a slice along the first axis reads only the chunks that hold those rows; what
    further axes leave out of these rows is read and dropped. Any index is possible that the
    framework's own arrays take.
    """

    def __init__(
        self,
        view: View,
        storage: TensorSpan,
        read: Callable[[Range], Bytes],
        framework: Framework[T],
    ) -> None:
        self._view = view
        self._storage = storage
        self._read = read
        self._framework = framework

    def get_shape(self) -> list[int]:
        """Return the tensor's shape."""
        return list(self._view.shape)

    def get_dtype(self) -> str:
        """Return the tensor's dtype as safetensors calls it, such as ``BF16``."""
        return self._view.dtype

    def __getitem__(self, index: Any) -> T:
        """Return the part, in memory of its own; ``IndexError`` beyond the end of an axis."""
        chosen = index if isinstance(index, tuple) else (index,)
        view = self._view
        if chosen and _is_cut_by_rows(view) and _is_row_index(chosen[0]):
            start, stop, first = _rows(chosen[0], view.shape[0])
            width = element_count(view.shape[1:])
            shape = (stop - start, *view.shape[1:])
            view = replace(view, shape=shape, offset=view.offset + start * width)
            chosen = (first, *chosen[1:])
        read, part = place_of(view, self._storage)
        return self._framework.pick(self._framework.array(part, self._read(read)), chosen)


def place_of(view: View, storage: TensorSpan) -> tuple[Range, View]:
    """Return the bytes of ``storage`` that hold ``view``, and the view within these bytes."""
    known = DTYPES.get(view.dtype)
    if view.strides is not None or known is None or known.bits < 8:
        return Range(storage, 0, storage.length), view
    size = known.bits // 8
    start = view.offset * size
    count = element_count(view.shape)
    return Range(storage, start, start + count * size), replace(view, offset=0)


def _is_cut_by_rows(view: View) -> bool:
    known = DTYPES.get(view.dtype)
    return bool(view.shape) and view.strides is None and known is not None and known.bits >= 8


def _is_row_index(index: object) -> bool:
    return isinstance(index, (int, np.integer, slice)) and not isinstance(index, bool)


def _rows(index: Any, length: int) -> tuple[int, int, int | slice]:
    """Return the first row and the last plus one that ``index`` needs, and the index in these."""
    if not isinstance(index, slice):
        row = int(index) + (length if index < 0 else 0)
        if not 0 <= row < length:
            raise IndexError(f"index {index} is out of range for an axis of length {length}")
        return row, row + 1, 0
    rows = range(*index.indices(length))
    if not rows:
        return 0, 0, slice(0, 0)
    return min(rows[0], rows[-1]), max(rows[0], rows[-1]) + 1, slice(None, None, rows.step)
