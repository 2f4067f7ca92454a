"""The safetensors format.

A file is an unsigned little-endian 64-bit length N, a header of N bytes, then the data. The header
is a JSON object, UTF-8, beginning with ``{`` and maybe padded with spaces; it maps each tensor's
name to ``{"dtype", "shape", "data_offsets": [begin, end]}``, the offsets counted from the end of
the header. ``__metadata__`` maps strings to strings. Source: the section "Format" of
https://github.com/huggingface/safetensors/blob/main/README.md; the limit of 100 MB on the header
and sub-byte types, packed into whole bytes, are from its reference implementation.

The specification forbids holes between tensors and bytes after them. Here they are kept, like
everything in no span, so that a file that some writer did produce comes back as it was.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn

from git_theta.core.dtypes import dtype
from git_theta.core.layout import MAX_TENSORS, Checksum, Layout, Rebuilt, Source, TensorSpan
from git_theta.errors import FormatError
from git_theta.formats.checks import quote
from git_theta.formats.skeleton import skeleton_digest

_LENGTH_BYTES = 8
_ALIGNMENT = 8
_MAX_HEADER = 100_000_000
# Braces, brackets and commas: about 8 a tensor. Each may cost the JSON reader some 60 bytes of
# memory, which 100 MB of "[],[],[]" would turn into 2 GB.
_MAX_PUNCTUATION = 16 * MAX_TENSORS


class _Safetensors:
    name = "safetensors"
    suffixes = (".safetensors",)

    def matches(self, source: Source) -> bool:
        """Return whether a plausible header length and an opening brace stand at the beginning."""
        if source.size < _LENGTH_BYTES + 1:
            return False
        head = source.read(0, _LENGTH_BYTES + 1)
        return _header_length(head) <= _MAX_HEADER and head[_LENGTH_BYTES:] == b"{"

    def scan(self, source: Source) -> Layout:
        """Return where the tensors lie, from the header alone. Raises ``FormatError``."""
        header = _read_header(source)
        start = _LENGTH_BYTES + len(header)
        spans = [
            _span(name, entry, start)
            for name, entry in _parse(header).items()
            if name != "__metadata__"
        ]
        # An empty tensor may stand anywhere among the others' edges: before the one that it
        # shares its start with, it overlaps nothing.
        spans.sort(key=lambda span: (span.start, span.length))
        remark = _remark(spans, start, source.size)
        return Layout(self.name, tuple(spans), remark=remark, hides=remark is not None)

    def extras(self, source: Source) -> bytes:
        """Return the metadata, and a digest of bytes that are in no tensor."""
        layout = self.scan(source)
        said = json.dumps(metadata_of(source), sort_keys=True).encode()
        if not layout.hides:
            return said
        head = TensorSpan("", "", (), 0, _LENGTH_BYTES + len(_read_header(source)))
        return said + skeleton_digest(source, (head, *layout.spans))

    def checksums(self, source: Source) -> Sequence[Checksum]:
        """None: the format has no checksums."""
        return ()

    def rebuild(self, source: Source, tensors: Sequence[TensorSpan]) -> Rebuilt:
        """Return a file with the metadata of ``source`` and other tensors.

        Like the reference implementation, wider types first, so that every tensor is aligned;
        among equals in the given order.
        """
        ordered = sorted(tensors, key=lambda span: -dtype(span.dtype).word)
        head = header(metadata_of(source), ordered)
        start = len(head)
        spans = []
        for span in ordered:
            spans.append(replace(span, start=start))
            start += span.length
        pieces = (head, *[b""] * len(spans))
        return Rebuilt(Layout(self.name, tuple(spans)), pieces)


FORMAT = _Safetensors()


def _header_length(head: bytes) -> int:
    return int.from_bytes(head[:_LENGTH_BYTES], "little")


def _read_header(source: Source) -> bytes:
    if source.size < _LENGTH_BYTES:
        raise FormatError(f"{source.size} bytes are too few for a header")
    length = _header_length(source.read(0, _LENGTH_BYTES))
    if length > _MAX_HEADER:
        raise FormatError(f"its first 8 bytes ask for a header of {length} bytes, over 100 MB")
    if _LENGTH_BYTES + length > source.size:
        raise FormatError(
            f"its header of {length} bytes ends beyond the file's {source.size} bytes"
        )
    return source.read(_LENGTH_BYTES, length)


def _parse(header: bytes) -> dict[str, Any]:
    if not header.startswith(b"{"):
        raise FormatError("its header does not begin with '{'")
    if sum(header.count(mark) for mark in (b"{", b"[", b",")) > _MAX_PUNCTUATION:
        raise FormatError("its header has more parts than any checkpoint needs")
    try:
        # A JSON text that begins with a brace is an object.
        parsed: dict[str, Any] = json.loads(header.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError:
        raise FormatError("its header is nested too deeply") from None
    except ValueError as error:
        raise FormatError(f"its header is not JSON: {error}") from None
    return parsed


def metadata_of(source: Source) -> Any:
    """Return the ``__metadata__`` of a file, ``None`` where there is none: it may be anything."""
    return _parse(_read_header(source)).get("__metadata__")


def header(metadata: Any, spans: Sequence[TensorSpan]) -> bytes:
    """Return what a file begins with in which the tensors of ``spans`` follow without gaps."""
    table: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    begin = 0
    for span in spans:
        end = begin + span.length
        table[span.name] = {
            "dtype": span.dtype,
            "shape": list(span.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise FormatError(f"{quote(counts.most_common(1)[0][0])} appears twice in its header")
    return found


def _span(name: str, entry: Any, start: int) -> TensorSpan:
    if type(entry) is not dict:
        _fail(name, "is not described by an object")
    kind, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if type(kind) is not str:
        _fail(name, "has no dtype")
    if type(shape) is not list:
        _fail(name, "has no shape")
    if type(offsets) is not list or [type(offset) for offset in offsets] != [int, int]:
        _fail(name, "has no data_offsets [begin, end]")
    begin, end = offsets
    if not 0 <= begin <= end:
        _fail(name, f"has data_offsets {quote(str(offsets))}")
    return TensorSpan(name, kind, tuple(shape), start + begin, end - begin)


def _remark(spans: Sequence[TensorSpan], start: int, size: int) -> str | None:
    """Tell of bytes that are in no tensor: the reference implementation loads no such file."""
    spare = size - start - sum(span.length for span in spans)
    if spare <= 0:
        return None
    end = max((span.start + span.length for span in spans), default=start)
    where = "behind its tensors" if end + spare == size else "between its tensors"
    count = "1 byte lies" if spare == 1 else f"{spare:,} bytes lie"
    return (
        f"{count} {where}, so that the safetensors library does not load it. "
        "It is kept exactly, byte for byte"
    )


def _fail(name: str, what: str) -> NoReturn:
    raise FormatError(f"tensor {quote(name)} {what}")
