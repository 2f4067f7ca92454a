"""An ``.npz`` file made of other arrays, as ``numpy.savez`` writes it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

from git_theta.core.dtypes import DEFLATED
from git_theta.core.layout import Checksum, Layout, Rebuilt, TensorSpan
from git_theta.errors import FormatError
from git_theta.formats.checks import quote
from git_theta.formats.npy_header import write_header
from git_theta.formats.zip_directory import ENTRY_CHECKSUM, ENTRY_SIZE, LOCAL_CHECKSUM, shown
from git_theta.formats.zip_writer import (
    LOCAL_SIZE,
    NewRecord,
    directory_end,
    directory_entry,
    local_header,
)

_MEMBER = b".npy"


def rebuild_npz(
    name: str, tensors: Sequence[TensorSpan], others: Sequence[tuple[bytes, bytes]]
) -> Rebuilt:
    """Return a file of the format ``name`` with these arrays, then ``others``: name and content.

    Raises ``FormatError`` for what NumPy has no array for, and for names that are there twice.
    """
    writer = _Writer()
    for span in tensors:
        if span.dtype.startswith(DEFLATED):
            writer.add_deflated(span)
        else:
            writer.add_array(span)
    for record in others:
        writer.add_other(*record)
    return writer.finish(name)


class _Writer:
    """Lays records one after another: arrays first, whose bytes are not here, then all others."""

    def __init__(self) -> None:
        self._records: list[NewRecord] = []
        self._headers: list[int] = []
        self._starts: list[int] = []
        self._spans: list[TensorSpan] = []
        self._pieces: list[bytes] = []
        self._piece = bytearray()
        self._position = 0

    def add_array(self, span: TensorSpan) -> None:
        head = write_header(span)
        # That of the header alone: right for an empty array, and renewed for all others.
        checksum = zlib.crc32(head)
        length = len(head) + span.length
        self._begin(NewRecord(_record_name(span.name), length, checksum, length))
        self._write(head)
        self._leave_room(span)

    def add_deflated(self, span: TensorSpan) -> None:
        # Its header is deflated too. What it inflates to is known when it is written.
        self._begin(NewRecord(_record_name(span.name), 0, 0, span.length, is_deflated=True))
        self._leave_room(span)

    def _leave_room(self, span: TensorSpan) -> None:
        self._spans.append(replace(span, start=self._position))
        self._pieces.append(bytes(self._piece))
        self._piece.clear()
        self._position += span.length

    def add_other(self, name: bytes, content: bytes) -> None:
        self._begin(NewRecord(name, len(content), zlib.crc32(content), len(content)))
        self._write(content)

    def finish(self, name: str) -> Rebuilt:
        """Return the file, with its directory."""
        self._refuse_duplicates()
        checksums, start = [], self._position
        for number, record in enumerate(self._records):
            header = self._headers[number]
            if number < len(self._spans):
                places = (header + LOCAL_CHECKSUM, self._position + ENTRY_CHECKSUM)
                sizes: tuple[int, ...] = ()
                if record.is_deflated:
                    local = header + LOCAL_SIZE + len(record.name)
                    sizes = (local, self._position + ENTRY_SIZE)
                checksums.append(Checksum(self._starts[number], record.stored, places, sizes))
            self._write(directory_entry(record, header))
        self._write(directory_end(len(self._records), start, self._position - start))
        layout = Layout(name, tuple(self._spans))
        return Rebuilt(layout, (*self._pieces, bytes(self._piece)), tuple(checksums))

    def _begin(self, record: NewRecord) -> None:
        self._records.append(record)
        self._headers.append(self._position)
        self._write(local_header(record))
        self._starts.append(self._position)

    def _write(self, data: bytes) -> None:
        self._piece += data
        self._position += len(data)

    def _refuse_duplicates(self) -> None:
        seen: set[bytes] = set()
        for record in self._records:
            if record.name in seen:
                raise FormatError(
                    f"{shown(record.name)} is a plain array on one side, and none on another",
                    hint="give one of them another name",
                )
            seen.add(record.name)


def _record_name(name: str) -> bytes:
    try:
        return name.encode("utf-8", "surrogateescape") + _MEMBER
    except UnicodeEncodeError:
        raise FormatError(
            f"{quote(name)} cannot be the name of an array of NumPy", hint="give it another name"
        ) from None
