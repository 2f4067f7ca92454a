"""Pickles with NumPy arrays or PyTorch tensors in them, as ``pickle.dump`` writes them.

Nothing is unpickled: the bytes of an array are where the pickle has them. Protocols 3 to 5; before
them bytes are written as text. An array is a call of ``_reconstruct`` with a state or, since
protocol 5, of ``_frombuffer``; a storage is a whole file of ``torch.save`` in bytes.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from git_theta.core.layout import Layout, Source, TensorSpan
from git_theta.errors import FormatError
from git_theta.formats.checks import MAX_DIMENSIONS, MAX_INT
from git_theta.formats.fixed import FixedStructure
from git_theta.formats.names import Names, Trail
from git_theta.formats.npy_header import NpyHeader, element_name
from git_theta.formats.parts import Window
from git_theta.formats.pickle_machine import Global, Object, Raw
from git_theta.formats.pickle_reader import read_source
from git_theta.formats.pickled_arrays import (
    PickledArray,
    array_of,
    is_empty,
    is_too_deep,
    walk,
)
from git_theta.formats.torch_probes import is_legacy

_PROTOCOLS = (3, 4, 5)
_STORAGE = Global("torch.storage", "_load_from_bytes")
_CODE = re.compile(r"([a-zA-Z])([0-9]{1,4})")


class _Pickle(FixedStructure):
    name = "pickle"
    suffixes = (".pkl", ".pickle")
    cannot = "arrays cannot be added to a pickle"

    def matches(self, source: Source) -> bool:
        """Return whether it is a pickle from its first byte to its last, and not torch's."""
        if source.size < 4 or source.read(source.size - 1, 1) != b".":
            return False
        head = source.read(0, 2)
        return head[0] == 0x80 and head[1] in _PROTOCOLS and not is_legacy(source)

    def scan(self, source: Source) -> Layout:
        """Return where the arrays lie. Raises ``FormatError``."""
        if not self.matches(source):
            raise FormatError("it is not a pickle of protocol 3, 4 or 5")
        names, hides = Names(), False
        spans: list[TensorSpan] = []
        raws: list[Raw] = []
        for node, trail in walk(read_source(source)):
            if type(node) is Object and not is_too_deep(trail):
                found = _spans(source, node, trail)
                spans += (replace(span, name=names.unique(span.name)) for span in found or ())
                hides |= found is None
            elif type(node) is Raw:
                raws.append(node)
            else:
                hides = True
        spans.sort(key=lambda span: (span.start, span.length))
        hides |= any(_is_apart(raw, spans) for raw in raws)
        return Layout(self.name, tuple(spans), hides=hides)


FORMAT = _Pickle()


def _is_apart(raw: Raw, spans: Sequence[TensorSpan]) -> bool:
    """Return whether no span begins in these bytes: they are some other library's."""
    at = bisect_left(spans, raw.start, key=lambda span: span.start)
    return at == len(spans) or spans[at].start > raw.start + raw.length


def _spans(source: Source, node: Object, trail: Trail) -> list[TensorSpan] | None:
    """Return the spans of an object; ``None`` for an array whose elements are no span."""
    if node.call == _STORAGE and type(node.args) is tuple and node.args:
        raw = node.args[0]
        return _torch(source, raw, trail) if type(raw) is Raw else []
    array = array_of(node)
    if array is None or is_empty(array):
        return []
    return [_array(trail, array, array.raw)] if type(array.raw) is Raw else None


def _array(trail: Trail, array: PickledArray, raw: Raw) -> TensorSpan:
    dtype, size = _dtype(array.kind)
    if dtype is not None and _is_shape(array.shape):
        header = NpyHeader(dtype, size, array.shape, array.is_fortran, raw.start)
        span = header.span(trail.name())
        if span is not None and span.length == raw.length:
            return span
    return TensorSpan(trail.name(), "U8", (raw.length,), raw.start, raw.length)


def _is_shape(shape: Any) -> bool:
    return (
        type(shape) is tuple
        and len(shape) <= MAX_DIMENSIONS
        and all(type(count) is int and 0 <= count < MAX_INT for count in shape)
    )


def _dtype(node: Any) -> tuple[str | None, int]:
    """Return the name and the bytes of a simple dtype: ``dtype("f4")`` with its byte order."""
    if type(node) is not Object or node.call != Global("numpy", "dtype"):
        return None, 0
    code = node.args[0] if type(node.args) is tuple and node.args else None
    order = node.state[1] if type(node.state) is tuple and len(node.state) > 1 else "|"
    found = _CODE.fullmatch(code) if type(code) is str else None
    if found is None:
        return None, 0
    return element_name(found[1], int(found[2]), order), int(found[2])


def _torch(source: Source, raw: Raw, trail: Trail) -> list[TensorSpan]:
    if raw.start + raw.length > source.size:
        raise FormatError("its pickle is cut off")
    window = Window(source, raw.start, raw.length)
    if not is_legacy(window):
        return []
    # Imported here: a pickle of arrays needs none of PyTorch's readers.
    from git_theta.formats.torch_legacy import LegacyFile

    found = LegacyFile(window).layout("torch").spans
    return [replace(span, name=trail.name(), start=raw.start + span.start) for span in found]
