"""GGUF files, as llama.cpp and its kin read them.

Numbers are tensors of their dtypes. A quantised tensor is blocks of some bytes each, in which
scales and packed integers stand together: its dtype is called ``GGUF_Q4_0`` and so on, and its
shape counts bytes, so that each row is whole blocks. The header: see ``gguf_header``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from git_theta.core.dtypes import element_count
from git_theta.core.layout import Checksum, Layout, Rebuilt, Source, TensorSpan
from git_theta.errors import FormatError
from git_theta.formats.checks import MAX_INT, quote
from git_theta.formats.gguf_header import (
    MAGIC,
    VERSIONS,
    GgufHeader,
    TensorInfo,
    pack_info,
    padding,
    read_header,
)


class _Type(NamedTuple):
    """``elements`` of a tensor take ``size`` bytes."""

    dtype: str
    elements: int
    size: int


# Source: GGML_QUANT_SIZES in gguf-py/gguf/constants.py, with which a test compares it.
_TYPES = {
    0: _Type("F32", 1, 4),
    1: _Type("F16", 1, 2),
    2: _Type("GGUF_Q4_0", 32, 18),
    3: _Type("GGUF_Q4_1", 32, 20),
    6: _Type("GGUF_Q5_0", 32, 22),
    7: _Type("GGUF_Q5_1", 32, 24),
    8: _Type("GGUF_Q8_0", 32, 34),
    9: _Type("GGUF_Q8_1", 32, 40),
    10: _Type("GGUF_Q2_K", 256, 84),
    11: _Type("GGUF_Q3_K", 256, 110),
    12: _Type("GGUF_Q4_K", 256, 144),
    13: _Type("GGUF_Q5_K", 256, 176),
    14: _Type("GGUF_Q6_K", 256, 210),
    15: _Type("GGUF_Q8_K", 256, 292),
    16: _Type("GGUF_IQ2_XXS", 256, 66),
    17: _Type("GGUF_IQ2_XS", 256, 74),
    18: _Type("GGUF_IQ3_XXS", 256, 98),
    19: _Type("GGUF_IQ1_S", 256, 50),
    20: _Type("GGUF_IQ4_NL", 32, 18),
    21: _Type("GGUF_IQ3_S", 256, 110),
    22: _Type("GGUF_IQ2_S", 256, 82),
    23: _Type("GGUF_IQ4_XS", 256, 136),
    24: _Type("I8", 1, 1),
    25: _Type("I16", 1, 2),
    26: _Type("I32", 1, 4),
    27: _Type("I64", 1, 8),
    28: _Type("F64", 1, 8),
    29: _Type("GGUF_IQ1_M", 256, 56),
    30: _Type("BF16", 1, 2),
    34: _Type("GGUF_TQ1_0", 256, 54),
    35: _Type("GGUF_TQ2_0", 256, 66),
    39: _Type("GGUF_MXFP4", 32, 17),
    40: _Type("GGUF_NVFP4", 64, 36),
    41: _Type("GGUF_Q1_0", 128, 18),
}
_NUMBERS = {kind.dtype: number for number, kind in _TYPES.items()}


class _Gguf:
    name = "gguf"
    suffixes = (".gguf",)

    def matches(self, source: Source) -> bool:
        """Return whether it begins with the magic and a known version."""
        head = source.read(0, 8) if source.size >= 8 else b""
        return head[:4] == MAGIC and int.from_bytes(head[4:], "little") in VERSIONS

    def scan(self, source: Source) -> Layout:
        """Return where the tensors lie, from the header alone. Raises ``FormatError``."""
        header = read_header(source)
        infos = sorted(header.tensors, key=lambda info: info.offset)
        ends = [*(info.offset for info in infos[1:]), source.size - header.data_start]
        spans = [
            _span(info, end, header.data_start) for info, end in zip(infos, ends, strict=False)
        ]
        spans.sort(key=lambda span: (span.start, span.length))
        return Layout(self.name, tuple(spans))

    def extras(self, source: Source) -> bytes:
        """Return the metadata."""
        header = read_header(source)
        start, stop = header.metadata
        return header.start_with(tensors=0) + source.read(start, stop - start)

    def checksums(self, source: Source) -> Sequence[Checksum]:
        """Return none: the format has no checksums."""
        return ()

    def rebuild(self, source: Source, tensors: Sequence[TensorSpan]) -> Rebuilt:
        """Return a file with the metadata of ``source`` and other tensors, in the given order."""
        header = read_header(source)
        offset, infos = 0, []
        for span in tensors:
            infos.append(_info(span, offset))
            offset += span.length + padding(span.length, header.alignment)
        head = _head(source, header, infos)
        placed = zip(tensors, infos, strict=True)
        spans = tuple(replace(span, start=len(head) + info.offset) for span, info in placed)
        gaps = (bytes(padding(span.length, header.alignment)) for span in tensors)
        return Rebuilt(Layout(self.name, spans), (head, *gaps))


FORMAT = _Gguf()


def _span(info: TensorInfo, end: int, data_start: int) -> TensorSpan:
    """``end`` is where the next tensor begins, in the data."""
    kind = _TYPES.get(info.type)
    start = data_start + info.offset
    if kind is None:
        # Newer than this table: how many bytes it takes, only the next tensor's place tells.
        length = max(0, end - info.offset)
        return TensorSpan(info.name, f"GGUF_TYPE_{info.type}", (length,), start, length)
    first, *rest = info.dimensions or (1,)
    if first % kind.elements or max(info.dimensions, default=0) >= MAX_INT:
        raise FormatError(f"the rows of {quote(info.name)} are not whole blocks of {kind.dtype}")
    blocks = first // kind.elements
    row = blocks if kind.elements == 1 else blocks * kind.size
    shape = (*reversed(rest), row) if info.dimensions else ()
    length = element_count(rest) * blocks * kind.size
    return TensorSpan(info.name, kind.dtype, shape, start, length)


def _info(span: TensorSpan, offset: int) -> TensorInfo:
    number = _NUMBERS.get(span.dtype)
    if number is None or span.strides is not None or span.offset:
        raise FormatError(
            f"{quote(span.name)} of {span.dtype} cannot be written into a GGUF file",
            hint="save all sides with the same quantisation, or as safetensors",
        )
    kind = _TYPES[number]
    dimensions = tuple(reversed(span.shape))
    if kind.elements > 1:
        dimensions = (dimensions[0] // kind.size * kind.elements, *dimensions[1:])
    return TensorInfo(span.name, dimensions, number, offset)


def _head(source: Source, header: GgufHeader, infos: Sequence[TensorInfo]) -> bytes:
    start, stop = header.metadata
    head = header.start_with(len(infos)) + source.read(start, stop - start)
    head += b"".join(map(pack_info, infos))
    return head + bytes(padding(len(head), header.alignment))
