"""Flax checkpoints: MessagePack maps in maps, with arrays as extensions.

An array is an extension of type 1 (3 for a scalar) whose content is again MessagePack: the shape,
the name of its dtype for numpy, and the bytes. Sources: ``flax/serialization.py`` in
https://github.com/google/flax, and https://github.com/msgpack/msgpack/blob/master/spec.md.
"""

from __future__ import annotations

from git_theta.core.dtypes import FRAMEWORK_NAMES, dtype, element_count
from git_theta.core.layout import Layout, Source, TensorSpan
from git_theta.errors import FormatError
from git_theta.formats.checks import MAX_DIMENSIONS, MAX_INT, MAX_NAME, quote
from git_theta.formats.fixed import FixedStructure
from git_theta.formats.msgpack import ARRAY, BINARY, EXTENSION, INTEGER, MAP, TEXT, Item, Reader
from git_theta.formats.names import ROOT, Names, Trail

_ARRAY_TYPES = (1, 3)
_DEEPEST = 256
_LONG = 64
_DTYPES = {numpy: ours for ours, numpy in FRAMEWORK_NAMES.items()}


class _Flax(FixedStructure):
    name = "flax"
    suffixes = (".msgpack",)
    cannot = "arrays cannot be added to a Flax checkpoint"

    def matches(self, source: Source) -> bool:
        """Return whether it begins as a map with a text for a key."""
        try:
            reader = Reader(source)
            whole = reader.item(0)
            if whole.kind != MAP or not whole.number:
                return False
            return reader.item(whole.stop).kind == TEXT
        except FormatError:
            return False

    def scan(self, source: Source) -> Layout:
        """Return where the arrays lie. Raises ``FormatError``."""
        if not self.matches(source):
            raise FormatError("it does not begin as a map with a text for a key")
        spans = _spans(Reader(source), source.size)
        return Layout(self.name, tuple(filter(None, spans)), hides=None in spans)


FORMAT = _Flax()


def _is_array(item: Item) -> bool:
    return item.kind == EXTENSION and item.extension in _ARRAY_TYPES


def _is_apart(item: Item) -> bool:
    """Return whether an item holds bytes that may be numbers, as another library writes them."""
    return item.kind in (BINARY, EXTENSION) and item.stop - item.start >= _LONG


def _spans(reader: Reader, size: int) -> list[TensorSpan | None]:
    """Return every array below the map that the file is, in order.

    ``None`` stands for long bytes that are no array of Flax.
    """
    names, position = Names(), 0
    spans: list[TensorSpan | None] = []
    # How many values a map or list has left, whether they have keys, and the way to it.
    open_: list[tuple[int, bool, Trail]] = [(1, False, ROOT)]
    while open_:
        left, has_keys, trail = open_.pop()
        if not left:
            continue
        open_.append((left - 1, has_keys, trail))
        here = trail
        if has_keys:
            key = reader.item(position)
            position = reader.end(key)
            here = trail.below(reader.text(key, MAX_NAME) if key.kind == TEXT else str(left))
        item = reader.item(position)
        if item.kind in (MAP, ARRAY):
            position = item.stop
            if len(open_) > _DEEPEST:
                raise FormatError(f"its maps are more than {_DEEPEST} deep")
            open_.append((item.number, item.kind == MAP, here))
            continue
        if _is_array(item):
            spans += _array(reader, item, here, names)
        elif _is_apart(item):
            spans.append(None)
        position = reader.end(item)
    if position != size:
        raise FormatError(f"{size - position} bytes follow its end")
    return spans


def _array(reader: Reader, item: Item, trail: Trail, names: Names) -> list[TensorSpan]:
    parts = reader.item(item.start)
    shape = reader.item(parts.stop)
    if (parts.kind, parts.number, shape.kind) != (ARRAY, 3, ARRAY) or shape.number > MAX_DIMENSIONS:
        raise FormatError(f"the array {quote(trail.name())} has no valid shape")
    position, sizes = shape.stop, []
    for _ in range(shape.number):
        number = reader.item(position)
        if number.kind != INTEGER or not 0 <= number.number < MAX_INT:
            raise FormatError(f"the array {quote(trail.name())} has no valid shape")
        sizes.append(number.number)
        position = number.stop
    named = reader.item(position)
    data = reader.item(reader.end(named))
    if named.kind != TEXT or data.kind != BINARY or data.stop != item.stop:
        raise FormatError(f"the array {quote(trail.name())} has no bytes")
    length = data.stop - data.start
    kind = _DTYPES.get(reader.text(named, 64))
    if kind is None or element_count(sizes) * dtype(kind).bits != 8 * length:
        kind, sizes = "U8", [length]
    if not length:
        return []
    return [TensorSpan(names.unique(trail.name()), kind, tuple(sizes), data.start, length)]
