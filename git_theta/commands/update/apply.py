"""A checkpoint's file with updates applied to its parameters."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from git_theta import formats
from git_theta.adapters import Update
from git_theta.core import registry
from git_theta.core.arrays import Bytes
from git_theta.core.files import FileSource
from git_theta.core.layout import Layout, Source, TensorSpan
from git_theta.errors import UsageError

_COPY = 16 << 20


def write_updated(
    source: Source, name: str, updates: Mapping[str, Update], output: IO[bytes]
) -> None:
    """Write ``source``, called ``name``, with every update applied; one parameter at a time.

    The format's checksums are renewed. Raises ``UsageError`` for an update of what is not there.
    """
    layout, _ = formats.scan(source, name)
    if absent := updates.keys() - {span.name for span in layout.spans}:
        raise UsageError(f"the file has no tensor {min(absent)}", path=name)
    position = 0
    for span in layout.spans:
        update = updates.get(span.name)
        if update is None:
            continue
        _copy(source, position, span.start, output)
        output.write(_applied(update, span, source).data)
        position = span.start + span.length
    _copy(source, position, source.size, output)
    _renew_checksums(source, layout, output)


def _applied(update: Update, span: TensorSpan, source: Source) -> Bytes:
    before = np.frombuffer(source.read(span.start, span.length), np.uint8)
    return update.apply(before, span.dtype, span.shape)


def _copy(source: Source, start: int, stop: int, output: IO[bytes]) -> None:
    for offset in range(start, stop, _COPY):
        output.write(source.read(offset, min(_COPY, stop - offset)))


def _renew_checksums(source: Source, layout: Layout, output: IO[bytes]) -> None:
    checksums = registry.format_named(layout.format).checksums(source)
    output.flush()
    with FileSource(Path(output.name)) as written:
        renewed = [(each.places, _crc(written, each.start, each.length)) for each in checksums]
    for places, crc in renewed:
        for place in places:
            output.seek(place)
            output.write(crc.to_bytes(4, "little"))
    output.flush()


def _crc(source: Source, start: int, length: int) -> int:
    crc = 0
    for offset in range(start, start + length, _COPY):
        crc = zlib.crc32(source.read(offset, min(_COPY, start + length - offset)), crc)
    return crc
