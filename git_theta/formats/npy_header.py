"""The header of an ``.npy`` file: the dtype, order and shape of one array.

Six magic bytes, two of version, the length of the header (two bytes in version 1, else four), the
header: a Python literal ``{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`` and
spaces. Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html.

The literal is matched as the text that NumPy writes, and not evaluated: ``ast.literal_eval`` can
exhaust the interpreter's stack.
"""

from __future__ import annotations

import re
from itertools import accumulate
from operator import mul
from typing import NamedTuple

from git_theta.core.dtypes import element_count
from git_theta.core.layout import Source, TensorSpan
from git_theta.errors import FormatError
from git_theta.formats.checks import MAX_DIMENSIONS, MAX_INT, quote

MAGIC = b"\x93NUMPY"

_VERSIONS = {1: 2, 2: 4, 3: 4}  # width of the header's length, in bytes
_PREFIX = len(MAGIC) + 2
# NumPy itself refuses more than 10,000 characters unless it is told to trust the file.
_MAX_HEADER = 1 << 16
# No two repetitions that could share their text: a hostile header is matched in linear time.
_LITERAL = re.compile(
    r"\{'descr': ?'(?P<descr>[^']{1,64})', ?'fortran_order': ?(?P<fortran>True|False), ?"
    r"'shape': ?\((?P<shape>[0-9L, ]*)\),? ?\}"
)
# A long integer of Python 2 ends with L.
_COUNT = re.compile(r" ?([0-9]{1,19})L?")
_RECORDS = "{'descr': ["
_SIMPLE = re.compile(
    r"(?P<order>[<>|=])(?P<kind>[a-zA-Z])(?P<size>[0-9]{0,9})(?:\[[0-9A-Za-z]+\])?"
)
# What NumPy leaves for an axis to grow in place, and what a header is padded to; both in bytes.
_GROWTH, _ALIGNMENT = 21, 64
_KINDS = {"f": "F", "i": "I", "u": "U"}
_KNOWN_SIZES = {"f": (2, 4, 8), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8)}
_FURTHER = {"b1": "BOOL", "c8": "C64", "c16": "C128"}
_CODES = {
    **{f"{_KINDS[kind]}{8 * n}": f"{kind}{n}" for kind in _KINDS for n in _KNOWN_SIZES[kind]},
    **{dtype: code for code, dtype in _FURTHER.items()},
}


class NpyHeader(NamedTuple):
    """``start`` is where the elements begin in the file, ``item_bytes`` the size of one.

    ``dtype`` is one of ``DTYPES``, else NumPy's own text; ``None`` for Python objects, whose
    elements are a pickle.
    """

    dtype: str | None
    item_bytes: int
    shape: tuple[int, ...]
    is_fortran: bool
    start: int

    def span(self, name: str) -> TensorSpan | None:
        """Return the span of the elements, ``None`` for Python objects."""
        if self.dtype is None:
            return None
        length = element_count(self.shape) * self.item_bytes
        return TensorSpan(name, self.dtype, self.shape, self.start, length, strides=self._strides())

    def _strides(self) -> tuple[int, ...] | None:
        if not self.is_fortran or sum(count != 1 for count in self.shape) < 2:
            return None
        return tuple(accumulate(self.shape[:-1], mul, initial=1))


def read_header(source: Source, begin: int, end: int) -> NpyHeader:
    """Return the header of the array that lies in bytes ``begin`` to ``end``.

    Raises ``FormatError``, also for an array that ends beyond ``end``.
    """
    text, start = _read_text(source, begin, end)
    found = _LITERAL.fullmatch(text)
    if found is None:
        what = "of records" if text.startswith(_RECORDS) else "not one that NumPy writes"
        raise FormatError(f"its header is {what}: {quote(text)}")
    dtype, size = _dtype(found["descr"])
    header = NpyHeader(dtype, size, _shape(found["shape"]), found["fortran"] == "True", start)
    span = header.span("")
    if span and start + span.length > end:
        missing = start + span.length - end
        raise FormatError(f"its array is cut off: {missing} of {span.length} bytes are missing")
    return header


def write_header(span: TensorSpan) -> bytes:
    """Return the header of an array as ``numpy.save`` writes it.

    Raises ``FormatError`` for what a plain array cannot be: of a dtype that NumPy lacks, or part
    of a larger storage.
    """
    code = _CODES.get(span.dtype)
    order = "|" if code and code[1:] == "1" else "<"
    descr = order + code if code else span.dtype
    is_fortran = span.strides is not None
    if _SIMPLE.fullmatch(descr):
        dtype, size = _dtype(descr)
        if NpyHeader(dtype, size, span.shape, is_fortran, span.start).span(span.name) == span:
            return _packed(descr, span.shape, is_fortran)
    raise FormatError(
        f"{quote(span.name)} of {quote(span.dtype)} cannot be written as an array of NumPy",
        hint="save all sides with the same dtypes, or as safetensors",
    )


def _packed(descr: str, shape: tuple[int, ...], is_fortran: bool) -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': {is_fortran}, 'shape': {shape}, }}"
    if shape:
        text += " " * (_GROWTH - len(str(shape[-1 if is_fortran else 0])))
    before = _PREFIX + _VERSIONS[1]
    text += " " * (_ALIGNMENT - (before + len(text) + 1) % _ALIGNMENT) + "\n"
    return MAGIC + b"\x01\x00" + len(text).to_bytes(_VERSIONS[1], "little") + text.encode()


def _read_text(source: Source, begin: int, end: int) -> tuple[str, int]:
    """Return the literal, and where the elements begin."""
    head = source.read(begin, min(_PREFIX + 4, end - begin))
    if head[: len(MAGIC)] != MAGIC or len(head) < _PREFIX + 4:
        raise FormatError("it does not begin like an .npy file")
    width = _VERSIONS.get(head[len(MAGIC)])
    if width is None:
        raise FormatError(f"its version {head[len(MAGIC)]} is unknown here")
    length = int.from_bytes(head[_PREFIX : _PREFIX + width], "little")
    first = begin + _PREFIX + width
    if length > _MAX_HEADER or first + length > end:
        raise FormatError(f"its header of {length} bytes is cut off or too large")
    return source.read(first, length).decode("utf-8", "replace").rstrip(), first + length


def _shape(text: str) -> tuple[int, ...]:
    counts = text.split(",", MAX_DIMENSIONS + 1)
    if counts[-1] in ("", " "):
        del counts[-1]
    found = [_COUNT.fullmatch(count) for count in counts]
    shape = tuple(int(count[1]) for count in found if count)
    if not len(shape) == len(counts) <= MAX_DIMENSIONS or max(shape, default=0) >= MAX_INT:
        raise FormatError(f"its array has the shape ({quote(text)})")
    return shape


def _dtype(descr: str) -> tuple[str | None, int]:
    """Return the dtype's name, and the bytes of an element."""
    found = _SIMPLE.fullmatch(descr)
    if found is None:
        raise FormatError(f"its dtype {quote(descr)} is unknown here")
    kind, size = found["kind"], int(found["size"] or 0)
    if kind == "O":
        return None, 0
    if kind == "U":
        size *= 4
    return element_name(kind, size, found["order"]) or descr, size


def element_name(kind: str, size: int, order: str) -> str | None:
    """Return the dtype that NumPy calls ``<f4`` and so on, ``None`` where it is none of ours."""
    if order == ">" and size > 1:
        # Its bits are kept; as numbers they would be read, and merged, the wrong way round.
        return None
    if size in _KNOWN_SIZES.get(kind, ()):
        return f"{_KINDS[kind]}{8 * size}"
    return _FURTHER.get(f"{kind}{size}")
