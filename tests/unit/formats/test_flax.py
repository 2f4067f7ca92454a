from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from git_theta.core import registry
from git_theta.errors import FormatError
from git_theta.formats import check_layout, msgpack, scan
from git_theta.testing.formats import MemorySource
from tests.support import checkpoints
from tests.support.flax_files import array, dict_of, flax_file, integer, sized, text

FORMAT = registry.format_named("flax")


def _spans(data: bytes):
    layout = FORMAT.scan(MemorySource(data))
    check_layout(layout, len(data))
    return [(s.name, s.dtype, s.shape, data[s.start : s.start + s.length]) for s in layout.spans]


def test_what_the_library_writes_is_found() -> None:
    """As ``flax.serialization.msgpack_serialize`` calls it."""
    library = pytest.importorskip("msgpack")

    def pack(value):
        content = (value.shape, value.dtype.name, value.tobytes())
        return library.ExtType(1, library.packb(content, use_bin_type=True))

    arrays = checkpoints.tensors(rows=600)
    tree = {
        "step": 70000,
        "params": {"dense": arrays, "half": np.ones((3, 2), ml_dtypes.bfloat16)},
        "rate": 0.5,
        "note": None,
        "list": [np.arange(3), {"x": np.zeros(2, "f2")}],
    }
    data = library.packb(tree, default=pack, use_bin_type=True, strict_types=True)
    layout, warning = scan(MemorySource(data), "flax_model.msgpack")
    assert (layout.format, warning) == ("flax", None)
    found = {name: (dtype, shape, raw) for name, dtype, shape, raw in _spans(data)}
    for name, value in arrays.items():
        assert found.pop(f"params.dense.{name}") == ("F32", value.shape, value.tobytes())
    assert {name: it[:2] for name, it in found.items()} == {
        "params.half": ("BF16", (3, 2)),
        "list": ("I64", (3,)),
        "list.x": ("F16", (2,)),
    }


@pytest.mark.parametrize("width", [1, 2, 4])
def test_lengths_of_every_width(width) -> None:
    inner = array("float32", (2,), bytes(8))
    data = dict_of({"a": dict_of({"w": sized(0xC6 + width.bit_length(), width, inner, b"\1")})})
    assert _spans(data) == [("a.w", "F32", (2,), bytes(8))]


def test_other_dtypes_and_shapes_are_bytes() -> None:
    strange = flax_file({"w": np.zeros(2, "f4")}).replace(b"float32", b"float99")
    assert _spans(strange) == [("w", "U8", (8,), bytes(8))]
    wrong = dict_of({"w": sized(0xC7, 1, array("float32", (3,), bytes(8)), b"\1")})
    assert _spans(wrong) == [("w", "U8", (8,), bytes(8))]


ARRAY = sized(0xC7, 1, array("float32", (2,), bytes(8)), b"\1")


@pytest.mark.parametrize(
    "data",
    [
        dict_of({"w": ARRAY}) + b"\0",
        dict_of({"w": ARRAY})[:-1],
        b"\xdf\xff\xff\xff\xff" + text("w") + ARRAY,
        b"\x81\x81\x01\x02" + ARRAY,
        dict_of({"w": sized(0xC7, 1, b"\x93\x01", b"\1")}),
        dict_of({"w": sized(0xC7, 1, b"\x92\x91\x01" + text("float32"), b"\1")}),
        dict_of({"w": sized(0xC7, 1, array("float32", (2,), bytes(8)) + b"\0", b"\1")}),
        dict_of({"w": sized(0xC7, 1, b"\x93\x91" + integer(1 << 63), b"\1")}),
        dict_of({"w": b"\xc1"}),
        b"\x81" + text("w") + b"\x81\xa1a" * 300 + ARRAY,
    ],
)
def test_what_is_malformed_is_refused(data) -> None:
    with pytest.raises(FormatError):
        FORMAT.scan(MemorySource(data))
    assert scan(MemorySource(data), "m.msgpack")[0].format == "opaque"


def test_more_parts_than_a_checkpoint_has_are_not_read(monkeypatch) -> None:
    monkeypatch.setattr(msgpack, "_MOST", 50)
    with pytest.raises(FormatError, match="more parts"):
        FORMAT.scan(MemorySource(dict_of({"w": b"\xdd\xff\xff\xff\xff" + bytes(200)})))
