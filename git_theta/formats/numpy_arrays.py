"""NumPy's files: one array (``.npy``), or a zip file of them (``.npz``).

The arrays of ``numpy.savez`` are spans, named by their keys; the array of an ``.npy`` file is
called ``array``. One that ``numpy.savez_compressed`` deflated is a span of its deflated bytes,
header included, whose dtype says so. What is no plain array stays in the skeleton: arrays of
records, and Python objects, which are a pickle that is never read. Format of the arrays: see
``npy_header``.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

from git_theta.core.dtypes import DEFLATED, DTYPES
from git_theta.core.layout import Checksum, Layout, Rebuilt, Source, TensorSpan
from git_theta.errors import FormatError
from git_theta.formats import zip_directory
from git_theta.formats.checks import MAX_INT
from git_theta.formats.npy_header import MAGIC, read_header, write_header
from git_theta.formats.skeleton import blocks, range_digest
from git_theta.formats.zip_directory import Record

_MEMBER = b".npy"
# Bytes of a deflated array that are inflated to read its header, and what they may become.
_HEAD, _HEADER = 4 << 10, 1 << 16
# What is larger is cut into chunks, which cannot be inflated.
_MOST = 1 << 26


class _NumPy:
    name = "numpy"
    suffixes = (".npy", ".npz")

    def matches(self, source: Source) -> bool:
        """Return whether it begins as an array, or as a zip file whose first record is one."""
        if _is_single(source):
            return True
        first = zip_directory.first_name(source)
        return first is not None and first.endswith(_MEMBER)

    def scan(self, source: Source) -> Layout:
        """Return where the arrays lie, from headers alone. Raises ``FormatError``."""
        if _is_single(source):
            array = _array(source)
            # np.save appends where it is given an open file: further arrays may follow.
            return Layout(self.name, (array,), hides=array.start + array.length < source.size)
        records = _records(source)
        found = {record: _member(source, record) for record in records}
        spans = sorted((s for s in found.values() if s), key=lambda span: (span.start, span.length))
        hides = any(_hides(source, record) for record, span in found.items() if span is None)
        return Layout(self.name, tuple(spans), remark=_remark(records), hides=hides)

    def extras(self, source: Source) -> bytes:
        """Return digests of what is no span: other records, and bytes after a single array."""
        if _is_single(source):
            array = _array(source)
            return range_digest(source, array.start + array.length, source.size)
        others = _others(source)
        _check_apart(source, others)
        return b"".join(sorted(_extra(source, record) for record in others))

    def checksums(self, source: Source) -> Sequence[Checksum]:
        """Return the zip file's, each of a header and its array; a single array has none."""
        return () if _is_single(source) else zip_directory.checksums(source)

    def rebuild(self, source: Source, tensors: Sequence[TensorSpan]) -> Rebuilt:
        """Return a file with these arrays and what else ``source`` holds, as NumPy writes it.

        Deflated arrays stay as they are. Raises ``FormatError`` for what else is compressed, and
        for an ``.npy`` file of other than one array.
        """
        if _is_single(source):
            return _rebuilt_single(self.name, source, tensors)
        others = _others(source)
        if compressed := next((record for record in others if not record.plain), None):
            name = zip_directory.shown(compressed.name)
            raise FormatError(
                f"{name} is compressed, and no array of 64 MiB at most that NumPy deflated",
                hint="save all sides with numpy.savez",
            )
        if not tensors:
            raise FormatError("no array is left in it", hint="remove the file on one side")
        _check_apart(source, others)
        # Imported here: a merge writes files, and every scan of a file without a name would pay.
        from git_theta.formats.npz_writer import rebuild_npz

        return rebuild_npz(self.name, tensors, [_content(source, record) for record in others])


FORMAT = _NumPy()


def _check_apart(source: Source, records: Sequence[Record]) -> None:
    if sum(record.length for record in records) > source.size:
        # Read or written one after another, they could be a thousand times as large.
        raise FormatError("its records overlap", hint="save it again with numpy.savez")


def _is_single(source: Source) -> bool:
    return source.size > len(MAGIC) and source.read(0, len(MAGIC)) == MAGIC


def _rebuilt_single(name: str, source: Source, tensors: Sequence[TensorSpan]) -> Rebuilt:
    old = _array(source)
    if [span.name for span in tensors] != [old.name]:
        raise FormatError(
            "an .npy file holds one array",
            hint="save all sides with numpy.savez, or as safetensors",
        )
    head = write_header(tensors[0])
    end = old.start + old.length
    layout = Layout(name, (replace(tensors[0], start=len(head)),))
    return Rebuilt(layout, (head, source.read(end, source.size - end)))


def _content(source: Source, record: Record) -> tuple[bytes, bytes]:
    return record.name, source.read(zip_directory.place(source, record), record.length)


def _array(source: Source) -> TensorSpan:
    span = read_header(source, 0, source.size).span("array")
    if span is None:
        raise FormatError("its array holds Python objects, pickled, which are not read here")
    return span


def _records(source: Source) -> list[Record]:
    first = zip_directory.first_name(source)
    if first is None or not first.endswith(_MEMBER):
        raise FormatError("it begins neither as an array nor as a zip file of arrays")
    return list(zip_directory.read_directory(source).values())


def _others(source: Source) -> list[Record]:
    """Return the records that are no spans; ``source`` may have zeros where these are."""
    return [
        record
        for record in _records(source)
        if _member(source, record) is None and not _is_left_out(source, record)
    ]


def _hides(source: Source, record: Record) -> bool:
    """Return whether a record that is no span is an array nevertheless."""
    return record.name.endswith(_MEMBER) and not _is_left_out(source, record)


def _is_left_out(source: Source, record: Record) -> bool:
    """Return whether a deflated array is zeros: no stream of DEFLATE begins with six of them."""
    if not record.deflated or not record.name.endswith(_MEMBER) or record.length > _MOST:
        return False
    start = zip_directory.place(source, record)
    return not any(block.strip(b"\0") for block in blocks(source, start, start + record.length))


def _member(source: Source, record: Record) -> TensorSpan | None:
    """Return the array that a record holds as it is, if it does."""
    if not record.name.endswith(_MEMBER):
        return None
    name = record.name[: -len(_MEMBER)].decode("utf-8", "surrogateescape")
    try:
        if record.deflated and record.length <= _MOST:
            return _deflated(source, record, name)
        start = zip_directory.place(source, record)
        end = start + record.length
        return read_header(source, start, end).span(name) if record.plain else None
    except FormatError:
        return None  # it stays in the skeleton, and the other arrays are found


def _deflated(source: Source, record: Record, name: str) -> TensorSpan | None:
    """Return the span of a deflated array, by the header that it begins with."""
    start = zip_directory.place(source, record)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        head = inflater.decompress(source.read(start, min(_HEAD, record.length)), _HEADER)
    except zlib.error:
        return None
    dtype = read_header(_Head(head), 0, MAX_INT).dtype
    if dtype not in DTYPES:
        return None
    return TensorSpan(name, f"{DEFLATED}{dtype}", (record.length,), start, record.length)


class _Head:
    """The first bytes of a file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        """Return what there is of ``length`` bytes at ``offset``."""
        return self._data[offset : offset + length]


def _remark(records: Sequence[Record]) -> str | None:
    whole = [record for record in records if not record.plain and record.name.endswith(_MEMBER)]
    count = sum(not record.deflated or record.length > _MOST for record in whole)
    if not count:
        return None
    arrays = "1 of its arrays is" if count == 1 else f"{count} of its arrays are"
    return (
        f"{arrays} compressed, not by deflate or to more than 64 MiB, and stored whole when the "
        "file changes: numpy.savez lets much less be stored"
    )


def _extra(source: Source, record: Record) -> bytes:
    start = zip_directory.place(source, record)
    return record.name + range_digest(source, start, start + record.length)
