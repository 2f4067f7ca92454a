"""What every layout must be, whichever format found it: limits, and where spans may lie."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain

from git_theta.core.dtypes import DTYPES, element_count
from git_theta.core.layout import MAX_TENSORS, Alias, Layout, TensorSpan
from git_theta.errors import FormatError

# Limits that no honest checkpoint meets (the largest mixtures of experts have 90,000 tensors).
# They bound a manifest: 250,000 lines of about 250 bytes and 16 Mi characters, six bytes each at
# worst when escaped, stay under the 256 MiB that a reader takes.
MAX_NAME = 1 << 16
MAX_NAMES = 1 << 24
MAX_DIMENSIONS = 64
MAX_INT = 1 << 62

# A dtype's name goes into every frame, which holds ASCII only.
_DTYPE = re.compile(r"[!-~]{1,64}")
# Two lone surrogates side by side read back from JSON as one character: a different name.
_SPLIT_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def quote(text: str) -> str:
    """Text from the file, safe and short enough to stand in a message."""
    shown = ascii(text[:80])
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def check_layout(layout: Layout, size: int) -> None:
    """Raise ``FormatError`` unless ``layout`` can be that of a file of ``size`` bytes.

    Spans are sorted, disjoint and inside the file; names are unique; every alias has its owner;
    a tensor of a known dtype lies inside its storage, and fills it if it is contiguous.
    """
    if len(layout.spans) + len(layout.aliases) > MAX_TENSORS:
        raise FormatError(f"it has more than {MAX_TENSORS} tensors")
    _check_names(layout)
    _check_places(layout.spans, size)
    for span in layout.spans:
        _check_tensor(span, span.length)
        _check_fills(span)
    lengths = {span.name: span.length for span in layout.spans}
    for alias in layout.aliases:
        if alias.of not in lengths:
            raise FormatError(f"{quote(alias.name)} views {quote(alias.of)}, which does not exist")
        _check_tensor(alias, lengths[alias.of])


def _check_names(layout: Layout) -> None:
    names: set[str] = set()
    total = 0
    for name in chain((s.name for s in layout.spans), (a.name for a in layout.aliases)):
        if type(name) is not str or len(name) > MAX_NAME or _is_split(name):
            raise FormatError("a tensor has a name that no manifest can hold")
        if name in names:
            raise FormatError(f"two tensors are called {quote(name)}")
        names.add(name)
        total += len(name)
    total += sum(len(alias.of) for alias in layout.aliases)
    if total > MAX_NAMES:
        raise FormatError(f"the names of its tensors have more than {MAX_NAMES} characters")


def _is_split(name: str) -> bool:
    return not name.isascii() and _SPLIT_PAIR.search(name) is not None


def _check_places(spans: Iterable[TensorSpan], size: int) -> None:
    end, before = 0, ""
    for span in spans:
        if not _are_sizes((span.start, span.length)):
            raise FormatError(f"{quote(span.name)} has no valid place in the file")
        if span.start < end:
            raise FormatError(f"{quote(span.name)} overlaps {quote(before)}")
        end, before = span.start + span.length, span.name
        if end > size:
            raise FormatError(
                f"{quote(span.name)} ends at byte {end}, beyond the file's {size} bytes"
            )


def _check_tensor(tensor: TensorSpan | Alias, length: int) -> None:
    """``length`` is that of the tensor's storage, in bytes."""
    shape, strides = tensor.shape, tensor.strides
    if type(tensor.dtype) is not str or not _DTYPE.fullmatch(tensor.dtype):
        raise FormatError(f"{quote(tensor.name)} has no valid dtype")
    if len(shape) > MAX_DIMENSIONS or (strides is not None and len(strides) != len(shape)):
        raise FormatError(f"{quote(tensor.name)} has a wrong number of dimensions")
    are_strides = strides is None or _are_sizes(map(_absolute, strides))
    if not are_strides or not _are_sizes((*shape, tensor.offset)):
        raise FormatError(f"{quote(tensor.name)} has no valid shape")
    known = DTYPES.get(tensor.dtype)
    if known and not _is_inside(tensor, length * 8 // known.bits):
        raise FormatError(f"{quote(tensor.name)} reaches beyond its {length} bytes")


def _check_fills(span: TensorSpan) -> None:
    known = DTYPES.get(span.dtype)
    if not known:
        return
    has = f"has {span.length} bytes,"
    if span.length * 8 % known.bits and known.bits >= 8:
        raise FormatError(f"{quote(span.name)} {has} not a whole number of {span.dtype}")
    bits = element_count(span.shape) * known.bits
    if span.strides is None and not span.offset and bits != span.length * 8:
        needed = f"{bits // 8} bytes" if bits % 8 == 0 else f"{bits} bits"
        needs = f"but {span.dtype} {list(span.shape)} needs {needed}"
        raise FormatError(f"{quote(span.name)} {has} {needs}")


def _absolute(stride: object) -> object:
    return abs(stride) if type(stride) is int else stride


def _are_sizes(numbers: Iterable[object]) -> bool:
    # type(), because a bool is an int and a manifest would hold it as true.
    return all(type(number) is int and 0 <= number < MAX_INT for number in numbers)


def _is_inside(tensor: TensorSpan | Alias, capacity: int) -> bool:
    """Return whether all elements lie among the ``capacity`` elements of the storage."""
    if 0 in tensor.shape:
        return True
    if tensor.strides is None:
        return tensor.offset + element_count(tensor.shape) <= capacity
    reach = [
        (count - 1) * stride for count, stride in zip(tensor.shape, tensor.strides, strict=True)
    ]
    lowest = tensor.offset + sum(step for step in reach if step < 0)
    highest = tensor.offset + sum(step for step in reach if step > 0)
    return lowest >= 0 and highest < capacity
