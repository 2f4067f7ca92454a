"""Files of every format made by hand, right or wrong in any detail, and their tensors read back."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from git_theta.core.dtypes import DTYPES
from git_theta.core.layout import Alias, Layout, TensorSpan

MAX32 = 0xFFFFFFFF


def safetensors(header: dict[str, Any] | str | bytes, data: bytes = b"", claim: int | None = None):
    """A safetensors file; ``claim`` is the header length that it states instead of the true one."""
    if isinstance(header, dict):
        header = json.dumps(header)
    if isinstance(header, str):
        header = header.encode()
    return struct.pack("<Q", len(header) if claim is None else claim) + header + data


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    """A tensor's line in a safetensors header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


# --- pickles, opcode by opcode --------------------------------------------------------------------


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes((len(raw),)) + raw


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def list_of(*items: bytes) -> bytes:
    return b"](" + b"".join(items) + b"e"


def dict_of(items: dict[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def global_of(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def call(module: str, name: str, *args: bytes) -> bytes:
    return global_of(module, name) + tuple_of(*args) + b"R"


def storage(key: str, count: int, kind: str = "FloatStorage") -> bytes:
    pid = (text("storage"), global_of("torch", kind), text(key), text("cpu"), integer(count))
    return tuple_of(*pid) + b"Q"


def tensor(
    stored: bytes, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0
) -> bytes:
    sizes = (tuple_of(*map(integer, numbers)) for numbers in (shape, strides))
    hooks = call("collections", "OrderedDict")
    return call(
        "torch._utils", "_rebuild_tensor_v2", stored, integer(offset), *sizes, b"\x89", hooks
    )


def vector(key: str, count: int, kind: str = "FloatStorage") -> bytes:
    return tensor(storage(key, count, kind), (count,), (1,))


def pickled(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


# --- zip files ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    """A zip record; ``None`` is the true value, ``zip64`` writes sizes and offset in 64 bits."""

    name: str
    data: bytes
    method: int = 0
    flags: int = 0
    zip64: bool = False
    local_name: str | None = None
    size: int | None = None
    header: int | None = None
    directory_extra: bytes | None = None


def zip_file(
    records: list[Record],
    *,
    zip64: bool = False,
    comment: bytes = b"",
    after: bytes = b"",
    **end: int,
) -> bytes:
    """A zip file; ``end`` overrides ``count``, ``length`` or ``start`` of its directory."""
    body, directory = bytearray(), bytearray()
    for record in records:
        at = len(body) if record.header is None else record.header
        local = (record.local_name or record.name).encode()
        body += struct.pack("<4s5H3L2H", b"PK\x03\x04", 0, 0, 0, 0, 0, 0, 0, 0, len(local), 3)
        body += local + b"pad" + record.data
        directory += _directory_entry(record, at)
    fields = {"count": len(records), "length": len(directory), "start": len(body)} | end
    tail = b""
    count, length, start = fields["count"], fields["length"], fields["start"]
    if zip64:
        at = len(body) + len(directory)
        tail += struct.pack(
            "<4sQ2H2L4Q", b"PK\x06\x06", 44, 0, 0, 0, 0, count, count, length, start
        )
        tail += struct.pack("<4sLQL", b"PK\x06\x07", 0, fields.get("at", at), 1)
        count, length, start = 0xFFFF, MAX32, MAX32
    tail += struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, length, start, len(comment))
    return bytes(body + directory + tail + comment + after)


def _directory_entry(record: Record, at: int) -> bytes:
    size = len(record.data) if record.size is None else record.size
    name, extra = record.name.encode(), b""
    if record.zip64:
        extra = struct.pack("<2H3Q", 1, 24, size, size, at)
        size = at = MAX32
    if record.directory_extra is not None:
        extra = record.directory_extra
    lengths = (len(name), len(extra), 0, 0, 0)
    head = ("<4s6H3L5H2L", b"PK\x01\x02", 0, 0, record.flags, record.method, 0, 0, 0, size, size)
    return struct.pack(*head, *lengths, 0, at) + name + extra


def torch_records(
    body: bytes, storages: dict[str, bytes], byteorder: str = "little"
) -> list[Record]:
    """The records of a checkpoint whose pickle is ``body``, in the order that torch writes."""
    return [
        Record("archive/data.pkl", pickled(body)),
        Record("archive/byteorder", byteorder.encode()),
        *(Record(f"archive/data/{key}", data) for key, data in storages.items()),
        Record("archive/version", b"3\n"),
    ]


def torch_file(body: bytes, storages: dict[str, bytes], byteorder: str = "little", **kwargs: Any):
    return zip_file(torch_records(body, storages, byteorder), **kwargs)


def changed(records: list[Record], name: str, **changes: Any) -> list[Record]:
    """The records with something else about the one called ``name``."""
    return [replace(it, **changes) if it.name.endswith(name) else it for it in records]


# --- arrays ---------------------------------------------------------------------------------------


def npy(descr: str, shape: str, data: bytes) -> bytes:
    """An ``.npy`` file whose header says this of its array."""
    literal = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n"
    header = literal.encode("utf-8", "replace")
    return b"\x93NUMPY\2\0" + struct.pack("<I", len(header)) + header + data


def gguf_text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def gguf_info(name: str, dimensions: list[int], kind: int, offset: int) -> bytes:
    """What a GGUF header says of a tensor."""
    counts = struct.pack(f"<L{len(dimensions)}Q", len(dimensions), *dimensions)
    return gguf_text(name) + counts + struct.pack("<LQ", kind, offset)


def gguf_file(
    entries: list[bytes], infos: list[bytes], data: bytes = b"", version: int = 3, **counts: int
) -> bytes:
    """A GGUF file with alignment 32; ``counts`` overrides the numbers ``tensors``, ``keys``."""
    tensors = counts.get("tensors", len(infos))
    head = struct.pack("<4sL2Q", b"GGUF", version, tensors, counts.get("keys", len(entries)))
    head += b"".join(entries) + b"".join(infos)
    return head + bytes(-len(head) % 32) + data


MAGIC_NUMBER = 0x1950A86A20F9469CFC6C


def legacy_file(
    body: bytes, storages: list[tuple[str, int, bytes]], is_little: bytes = b"\x88", **changes: Any
) -> bytes:
    """What torch.save wrote before 1.6: ``storages`` are keys, counts of elements, and bytes."""
    facts = dict_of({"protocol_version": integer(1001), "little_endian": is_little})
    keys = changes.get("keys", list_of(*(text(key) for key, _, _ in storages)))
    protocol = integer(changes.get("protocol", 1001))
    parts = (integer(MAGIC_NUMBER), protocol, facts, body, keys)
    data = (struct.pack("<Q", count) + content for _, count, content in storages)
    return b"".join(map(pickled, parts)) + b"".join(data)


# --- reading back ---------------------------------------------------------------------------------


def tensor_bytes(data: bytes, layout: Layout, name: str) -> bytes:
    """The elements of a tensor in C order, as shape, offset and strides say; whole bytes only."""
    spans = {span.name: span for span in layout.spans}
    aliases = {alias.name: alias for alias in layout.aliases}
    view: TensorSpan | Alias = spans.get(name) or aliases[name]
    span = spans[name] if name in spans else spans[aliases[name].of]
    stored = np.frombuffer(data, np.uint8, span.length, span.start)
    bits = DTYPES[view.dtype].bits
    if bits < 8:
        assert view.strides is None
        return stored.tobytes()
    elements = stored[: len(stored) // (bits // 8) * (bits // 8)].view(f"V{bits // 8}")
    strides = view.strides
    if strides is None:
        count = int(np.prod(view.shape, dtype=np.int64))
        return elements[view.offset : view.offset + count].tobytes()
    steps = [stride * bits // 8 for stride in strides]
    return np.lib.stride_tricks.as_strided(elements[view.offset :], view.shape, steps).tobytes()
