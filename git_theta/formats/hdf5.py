"""HDF5 files, in which Keras keeps weights: ``.h5``, and ``.keras``, a zip file with one in it.

A dataset in one piece is a span, called by its path: ``layers/dense/kernel``. Of one in chunks
each chunk is a span, called by its first element: ``layers/dense/kernel[0,128]``. Chunks that are
compressed, of a dataset that can grow, or of less than 4 KiB stay in the skeleton, and so do texts,
attributes, and groups of more than eight links that were written with ``libver="latest"``, which
need further structures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from git_theta.core.dtypes import element_count
from git_theta.core.layout import MAX_TENSORS, Checksum, Layout, Source, TensorSpan
from git_theta.errors import FormatError
from git_theta.formats import zip_directory
from git_theta.formats.fixed import FixedStructure
from git_theta.formats.hdf5_chunks import chunked, pieces
from git_theta.formats.hdf5_groups import SymbolTable
from git_theta.formats.hdf5_headers import (
    SIGNATURE,
    Message,
    contiguous,
    dtype_of,
    is_absent,
    is_dense,
    is_text,
    link_of,
    messages,
    root_address,
    shape_of,
)
from git_theta.formats.names import ROOT, Names, Trail
from git_theta.formats.parts import Metered, Window

_SPACE, _LINK_INFO, _TYPE, _LINK, _LAYOUT, _FILTERS, _TABLE = (
    0x01,
    0x02,
    0x03,
    0x06,
    0x08,
    0x0B,
    0x11,
)
_LEAST_CHUNK = 4 << 10
_DEEPEST = 64
# A dataset takes 500 bytes in 5 reads: room for 20,000. All of it read takes 5 s at the worst.
_MOST_READ = 16 << 20
_MEMBER = b".weights.h5"
_ZIPPED = (b"metadata.json", b"config.json")


class _Hdf5(FixedStructure):
    name = "hdf5"
    suffixes = (".h5", ".hdf5", ".keras")
    cannot = "datasets cannot be added to an HDF5 file"

    def matches(self, source: Source) -> bool:
        """Return whether it begins as HDF5, or is a Keras zip file with a stored one."""
        try:
            return _starts(source) or _window(source) is not source
        except FormatError:
            return False

    def scan(self, source: Source) -> Layout:
        """Return where the datasets lie. Raises ``FormatError``."""
        window = _window(source)
        start = window.start if isinstance(window, Window) else 0
        names = Names()
        spans = list(_datasets(Metered(window, _MOST_READ), names))
        found = [replace(span, start=start + span.start) for span in spans if span]
        found.sort(key=lambda span: (span.start, span.length))
        return Layout(self.name, tuple(found), hides=None in spans)

    def checksums(self, source: Source) -> Sequence[Checksum]:
        """Return the zip file's; datasets in one piece have none."""
        return () if _starts(source) else zip_directory.checksums(source)


FORMAT = _Hdf5()


def _starts(source: Source) -> bool:
    return source.size > len(SIGNATURE) and source.read(0, len(SIGNATURE)) == SIGNATURE


def _window(source: Source) -> Source:
    """Return the HDF5 file in a zip file of Keras, or ``source`` as it is."""
    if zip_directory.first_name(source) not in _ZIPPED:
        return source
    for record in zip_directory.read_directory(source).values():
        if record.plain and record.name.endswith(_MEMBER):
            return Window(source, zip_directory.place(source, record), record.length)
    return source


def _datasets(source: Source, names: Names) -> Iterator[TensorSpan | None]:
    """Yield every dataset, or its chunks, each once, whatever links lead to it.

    ``None`` stands for one that stays in the skeleton.
    """
    waiting: list[tuple[int, Trail]] = [(root_address(source), ROOT)]
    seen = {waiting[0][0]}
    while waiting:
        address, trail = waiting.pop()
        found = list(messages(source, address))
        for span in _spans(source, found, trail):
            yield span and replace(span, name=names.unique(span.name))
        if any(message.kind == _LINK_INFO and is_dense(message.data) for message in found):
            yield None
        for name, target in _links(source, found):
            if trail.depth >= _DEEPEST:
                yield None
            elif target not in seen:
                seen.add(target)
                waiting.append((target, trail.below(name)))
            if len(seen) > MAX_TENSORS:
                raise FormatError("it has more objects than any model needs")


def _links(source: Source, found: Sequence[Message]) -> Iterator[tuple[str, int]]:
    for message in found:
        if message.kind == _LINK and len(message.data) > 8 and (link := link_of(message.data)):
            yield link
        elif message.kind == _TABLE and len(message.data) >= 16:
            tree, heap = (int.from_bytes(message.data[at : at + 8], "little") for at in (0, 8))
            yield from SymbolTable(source, tree, heap).links()


def _spans(source: Source, found: Sequence[Message], trail: Trail) -> Iterator[TensorSpan | None]:
    """Yield the dataset that an object header describes, or its chunks; nothing for a group."""
    data = {message.kind: message.data for message in found if len(message.data) >= 4}
    if not {_SPACE, _LAYOUT} <= data.keys():
        return
    shape, place = shape_of(data[_SPACE]), contiguous(data[_LAYOUT])
    if shape is None or not element_count(shape) or (place is None and is_absent(data[_LAYOUT])):
        return
    kind = dtype_of(data[_TYPE]) if len(data.get(_TYPE, b"")) >= 8 else None
    if kind is None:
        # Of a type that is defined elsewhere in the file, or none of numbers.
        if _TYPE not in data or not is_text(data[_TYPE]):
            yield None
    elif place is None:
        is_plain = _FILTERS not in data
        chunks = _chunks(source, data[_LAYOUT], shape, kind, trail) if is_plain else ()
        yield from list(chunks) or (None,)
    else:
        (dtype, size), (start, length) = kind, place
        if length and element_count(shape) * size != length:
            raise FormatError("a dataset does not have as many bytes as its shape needs")
        if length:
            yield TensorSpan(trail.name("/"), dtype, shape, start, length)


def _chunks(
    source: Source, layout: bytes, shape: tuple[int, ...], kind: tuple[str, int], trail: Trail
) -> Iterator[TensorSpan]:
    whole = chunked(layout)
    if whole is None or whole.item != kind[1] or whole.length < _LEAST_CHUNK:
        return
    name = trail.name("/")
    for first, start in pieces(source, whole, shape):
        place = ",".join(map(str, first))
        yield TensorSpan(f"{name}[{place}]", kind[0], whole.shape, start, whole.length)
