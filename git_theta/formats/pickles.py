"""Pickles with NumPy arrays or PyTorch tensors in them, as ``pickle.dump`` writes them.

Nothing is unpickled: the bytes of an array are where the pickle has them. Protocols 3 to 5; before
them bytes are written as text. An array is a call of ``_reconstruct`` with a state or, since
protocol 5, of ``_frombuffer``; a storage is a whole file of ``torch.save`` in bytes. Source:
``array_reduce`` in https://github.com/numpy/numpy/blob/main/numpy/_core/src/multiarray/methods.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from git_theta.core.layout import Layout, Source, TensorSpan
from git_theta.errors import FormatError
from git_theta.formats.checks import MAX_DIMENSIONS, MAX_INT
from git_theta.formats.fixed import FixedStructure
from git_theta.formats.names import ROOT, Names, Trail
from git_theta.formats.npy_header import NpyHeader, element_name
from git_theta.formats.parts import Window
from git_theta.formats.pickle_machine import Global, Object, Raw
from git_theta.formats.pickle_reader import read_source
from git_theta.formats.torch_probes import is_legacy
from git_theta.formats.torch_tensors import children

_PROTOCOLS = (3, 4, 5)
_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric")
_NUMPY = {*_MODULES, "numpy._core.numeric"}
_STORAGE = Global("torch.storage", "_load_from_bytes")
_CODE = re.compile(r"([a-zA-Z])([0-9]{1,4})")
_DEEPEST = 256


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
        names = Names()
        spans = [
            replace(span, name=names.unique(span.name))
            for node, trail in _walk(read_source(source))
            for span in _spans(source, node, trail)
        ]
        spans.sort(key=lambda span: (span.start, span.length))
        return Layout(self.name, tuple(spans))


FORMAT = _Pickle()


def _walk(root: Any) -> Iterator[tuple[Object, Trail]]:
    """Yield every object below ``root`` once, with the way to it, in the pickle's order."""
    waiting, entered = [(root, ROOT)], set()
    while waiting:
        node, trail = waiting.pop()
        if id(node) in entered or trail.depth > _DEEPEST:
            continue
        entered.add(id(node))
        if type(node) is Object:
            yield node, trail
        below = [(child, trail.below(segment)) for segment, child in children(node)]
        waiting += reversed(below)


def _spans(source: Source, node: Object, trail: Trail) -> list[TensorSpan]:
    call, args, state = node.call, node.args, node.state
    if type(call) is not Global or type(args) is not tuple:
        return []
    if call == _STORAGE and args and type(args[0]) is Raw:
        return _torch(source, args[0], trail)
    if call.module not in _NUMPY:
        return []
    if call.name == "_reconstruct" and type(state) is tuple and len(state) == 5:
        return _array(trail, state[4], state[2], state[1], state[3] is True)
    if call.name == "_frombuffer" and len(args) == 4:
        return _array(trail, args[0], args[1], args[2], args[3] == "F")
    return []


def _array(trail: Trail, raw: Any, kind: Any, shape: Any, is_fortran: bool) -> list[TensorSpan]:
    if type(raw) is Object and type(raw.args) is tuple and raw.args:
        raw = raw.args[0]  # bytearray(b"...")
    if type(raw) is not Raw:
        return []
    dtype, size = _dtype(kind)
    if dtype is not None and _is_shape(shape):
        span = NpyHeader(dtype, size, shape, is_fortran, raw.start).span(trail.name())
        if span is not None and span.length == raw.length:
            return [span]
    return [TensorSpan(trail.name(), "U8", (raw.length,), raw.start, raw.length)]


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
