"""The spans and aliases of the storages of a PyTorch file, whichever way it holds them."""

from __future__ import annotations

from itertools import accumulate
from operator import mul

from git_theta.core.dtypes import element_count
from git_theta.core.layout import Alias, Layout, TensorSpan
from git_theta.errors import FormatError
from git_theta.formats.checks import quote
from git_theta.formats.torch_tensors import View
from git_theta.formats.torch_types import PACKED_FLOAT4, RAW, Element

_Numbers = tuple[int, ...]


class StorageSpans:
    """Collects views: the first of a storage is its span, each further one an alias."""

    def __init__(self, is_little: bool) -> None:
        self._is_little = is_little
        self._spans: dict[bytes, TensorSpan] = {}
        self._aliases: list[Alias] = []

    def add(self, view: View, key: bytes, start: int, length: int) -> None:
        """Add a view of storage ``key``: ``length`` bytes of the file from ``start``."""
        _check_holds(view, length)
        owner = self._spans.get(key)
        element = view.element
        if element is not None and element.size > 1 and not self._is_little:
            # The bits are kept; as numbers they would be read, and merged, the wrong way round.
            element = None
        if owner is None:
            self._spans[key] = _span(view, element, start, length)
        elif element is not None:
            dtype, shape, offset, strides = _geometry(view, element)
            self._aliases.append(Alias(view.name, dtype, shape, owner.name, offset, strides))

    def add_raw(self, name: str, key: bytes, start: int, length: int) -> None:
        """Add a storage that no tensor views."""
        self._spans[key] = _raw_span(name, start, length)

    def __contains__(self, key: bytes) -> bool:
        return key in self._spans

    def layout(self, name: str) -> Layout:
        """Return everything found, as a layout of the format ``name``."""
        spans = sorted(self._spans.values(), key=lambda span: (span.start, span.length))
        return Layout(name, tuple(spans), tuple(self._aliases))


def _check_holds(view: View, length: int) -> None:
    element, count = view.storage.element, view.storage.capacity
    if element is not None and count * element.size > length:
        raise FormatError(
            f"the storage {quote(view.storage.key)} has {length} bytes, "
            f"{quote(view.name)} needs {count * element.size}"
        )


def _raw_span(name: str, start: int, length: int) -> TensorSpan:
    return TensorSpan(name, RAW.dtype, (length,), start, length)


def _span(view: View, element: Element | None, start: int, length: int) -> TensorSpan:
    # A storage with a part of an element at its end was made for some other dtype's tensor.
    if element is None or length % element.size:
        return _raw_span(view.name, start, length)
    dtype, shape, offset, strides = _geometry(view, element)
    if strides is None and element_count(view.shape) * element.size != length:
        strides = contiguous(shape)
    return TensorSpan(view.name, dtype, shape, start, length, offset, strides)


def _geometry(view: View, element: Element) -> tuple[str, _Numbers, int, _Numbers | None]:
    """Dtype, shape, offset and strides; no strides where it is contiguous from the start."""
    dtype, shape, offset, strides = element.dtype, view.shape, view.offset, view.strides
    if element is PACKED_FLOAT4 and strides[-1:] == (1,):
        shape, offset = (*shape[:-1], 2 * shape[-1]), 2 * offset
        strides = (*(2 * stride for stride in strides[:-1]), 1)
    elif element is PACKED_FLOAT4:
        dtype = RAW.dtype
    is_plain = offset == 0 and _is_contiguous(shape, strides)
    return dtype, shape, offset, None if is_plain else strides


def _is_contiguous(shape: _Numbers, strides: _Numbers) -> bool:
    # The stride of a dimension of one element is never used, and torch leaves any value there.
    return len(shape) == len(strides) and all(
        count == 1 or stride == expected
        for count, stride, expected in zip(shape, strides, contiguous(shape), strict=True)
    )


def contiguous(shape: _Numbers) -> _Numbers:
    """Return the strides of a C-contiguous tensor.

    Torch counts an empty dimension as one element.
    """
    strides = accumulate((max(1, count) for count in reversed(shape[1:])), mul, initial=1)
    return tuple(strides)[::-1][: len(shape)]
