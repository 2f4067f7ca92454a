from __future__ import annotations

import numpy as np
import pytest

from git_theta.core.layout import Alias, Layout, TensorSpan
from git_theta.formats import scan
from git_theta.formats.torch_files import FORMAT
from git_theta.testing.formats import MemorySource
from tests.support.formats import (
    Record,
    call,
    changed,
    dict_of,
    global_of,
    integer,
    storage,
    tensor,
    text,
    torch_file,
    torch_records,
    tuple_of,
    vector,
    zip_file,
)

FOUR = np.arange(4, dtype=np.float32).tobytes()
BODY = dict_of({"w": vector("0", 4), "b": vector("1", 1)})
STORAGES = {"0": FOUR, "1": b"1234"}


def read(data: bytes) -> Layout:
    layout, warning = scan(MemorySource(data), "model.pt")
    assert warning is None
    return layout


def refusal(data: bytes) -> str:
    layout, warning = scan(MemorySource(data), "model.pt")
    assert layout == Layout("opaque")
    assert warning is not None
    assert "failed" not in warning
    return warning


def only(data: bytes) -> tuple[str, str, tuple[int, ...], int, tuple[int, ...] | None]:
    """Name, dtype, shape, offset and strides of the one span."""
    (span,) = read(data).spans
    return span.name, span.dtype, span.shape, span.offset, span.strides


@pytest.mark.parametrize("zip64", [False, True])
def test_storages_are_spans(zip64: bool):
    data = torch_file(BODY, STORAGES, zip64=zip64)
    assert read(data) == Layout(
        "torch",
        (
            TensorSpan("w", "F32", (4,), data.index(FOUR), 16),
            TensorSpan("b", "F32", (1,), data.index(b"1234"), 4),
        ),
    )


def test_spans_stand_in_file_order():
    records = torch_records(BODY, STORAGES)
    names = [span.name for span in read(zip_file([records[3], *records[:3]])).spans]
    assert names == ["b", "w"]


def test_tied_tensors_and_views_are_aliases():
    shared = storage("0", 4) + b"q\x00"
    again = b"h\x00"
    body = dict_of(
        {
            "a": tensor(shared, (2, 2), (2, 1)),
            "tied": tensor(again, (2, 2), (2, 1)),
            "start": tensor(again, (2,), (1,)),
            "row": tensor(again, (2,), (1,), 2),
            "transposed": tensor(again, (2, 2), (1, 2)),
            "halves": vector("0", 8, "HalfStorage"),
        }
    )
    layout = read(torch_file(body, {"0": FOUR}))
    assert [(span.name, span.strides) for span in layout.spans] == [("a", None)]
    assert layout.aliases == (
        Alias("tied", "F32", (2, 2), "a"),
        Alias("start", "F32", (2,), "a"),
        Alias("row", "F32", (2,), "a", 2, (1,)),
        Alias("transposed", "F32", (2, 2), "a", 0, (1, 2)),
        Alias("halves", "F16", (8,), "a"),
    )


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "expected"),
    [
        ((4,), (1,), 0, None),
        ((2, 1, 2), (2, 99, 1), 0, None),
        ((3,), (1,), 0, (1,)),
        ((), (), 0, ()),
        ((3,), (1,), 1, (1,)),
        ((2, 2), (1, 2), 0, (1, 2)),
        ((2,), (2,), 0, (2,)),
        ((0, 3), (3, 1), 0, (3, 1)),
        ((3, 0), (1, 1), 0, (1, 1)),
        ((5,), (0,), 0, (0,)),
    ],
)
def test_a_first_tensor_that_does_not_fill_its_storage(shape, strides, offset, expected):
    data = torch_file(tensor(storage("0", 4), shape, strides, offset), {"0": FOUR})
    assert only(data) == ("tensor", "F32", shape, offset, expected)


def test_storages_that_no_tensor_names_are_raw():
    records = [
        *torch_records(dict_of({"data/1": vector("0", 4)}), STORAGES | {"empty": b""}),
        Record("archive/constants/0", b"constant"),
        Record("archive/data/packed", b"deflated", method=8),
        Record("archive/.data/serialization_id", b"77"),
    ]
    layout = read(zip_file(records))
    assert [(span.name, span.dtype, span.shape) for span in layout.spans] == [
        ("data/1", "F32", (4,)),
        ("data/1#2", "U8", (4,)),
        ("constants/0", "U8", (8,)),
    ]


def test_big_endian_numbers_are_raw():
    body = dict_of(
        {
            "w": vector("0", 4),
            "tied": vector("0", 4),
            "bytes": vector("1", 4, "CharStorage"),
        }
    )
    layout = read(torch_file(body, STORAGES, byteorder="big"))
    assert [(span.name, span.dtype, span.shape) for span in layout.spans] == [
        ("w", "U8", (16,)),
        ("bytes", "I8", (4,)),
    ]
    assert layout.aliases == ()


def test_files_without_a_byteorder_are_little_endian():
    records = [it for it in torch_records(BODY, STORAGES) if not it.name.endswith("byteorder")]
    assert [span.dtype for span in read(zip_file(records)).spans] == ["F32", "F32"]


def test_unknown_types_are_raw():
    assert only(torch_file(vector("0", 8, "QUInt4x2Storage"), {"0": b"1234"})) == (
        "tensor",
        "U8",
        (4,),
        0,
        None,
    )


def test_a_storage_that_ends_within_an_element_is_raw():
    body = dict_of({"f": vector("0", 1), "u": vector("0", 7, "ByteStorage")})
    layout = read(torch_file(body, {"0": b"1234567"}))
    assert [(span.name, span.dtype, span.shape) for span in layout.spans] == [("f", "U8", (7,))]
    assert layout.aliases == (Alias("u", "U8", (7,), "f"),)


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "expected"),
    [
        ((2, 8), (8, 1), 0, ("F4", (2, 16), 0, None)),
        ((1, 8), (8, 1), 8, ("F4", (1, 16), 16, (16, 1))),
        ((8, 2), (1, 8), 0, ("U8", (8, 2), 0, (1, 8))),
    ],
)
def test_packed_floats_count_as_two_a_byte(shape, strides, offset, expected):
    sizes = [tuple_of(*map(integer, numbers)) for numbers in (shape, strides)]
    stored = storage("0", 16, "UntypedStorage")
    dtype = global_of("torch", "float4_e2m1fn_x2")
    args = (stored, integer(offset), *sizes, b"\x89", b"N", dtype)
    body = call("torch._utils", "_rebuild_tensor_v3", *args)
    assert only(torch_file(body, {"0": FOUR}))[1:] == expected


def test_files_zipped_again_are_read():
    folders = [Record("archive/", b""), Record("archive/data/", b"")]
    data = zip_file([*folders, *torch_records(BODY, STORAGES)])
    assert [span.name for span in read(data).spans] == ["w", "b"]


RECORDS = torch_records(BODY, STORAGES)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"GGUF and more", "does not begin with a zip record", id="not a zip"),
        pytest.param(zip_file([Record("data.json", b"")]), "in a folder", id="no folder"),
        pytest.param(zip_file(RECORDS)[:-1], "cut off or not a zip", id="cut off"),
        pytest.param(zip_file(RECORDS[1:]), "'data.pkl' is missing", id="no pickle"),
        pytest.param(
            zip_file(changed(RECORDS, "data.pkl", method=8)),
            "'data.pkl' is compressed",
            id="deflated",
        ),
        pytest.param(
            zip_file(changed(RECORDS, "data/0", method=8)),
            "'data/0' is compressed",
            id="deflated data",
        ),
        pytest.param(
            zip_file(changed(RECORDS, "byteorder", data=b"little" * 3)),
            "18 bytes are too many for the zip record 'byteorder'",
            id="byteorder",
        ),
        pytest.param(torch_file(BODY, {"0": FOUR}), "'data/1' is missing", id="no storage"),
        pytest.param(
            torch_file(BODY, {"0": FOUR, "1": b"123"}),
            "has 3 bytes, 'b' needs 4",
            id="short storage",
        ),
        pytest.param(
            torch_file(tensor(storage("0", 4), (5,), (1,)), {"0": FOUR}),
            "reaches beyond its 16 bytes",
            id="shape beyond the storage",
        ),
        pytest.param(
            torch_file(tensor(storage("0", 4), (2,), (1,), 3), {"0": FOUR}),
            "reaches beyond its 16 bytes",
            id="offset beyond the storage",
        ),
        pytest.param(
            torch_file(tensor(storage("0", 4), (2,), (1,), -1), {"0": FOUR}),
            "no valid shape",
            id="negative offset",
        ),
        pytest.param(
            torch_file(tensor(storage("0", 4), (2,), ()), {"0": FOUR}),
            "wrong number of dimensions",
            id="fewer strides",
        ),
        pytest.param(
            torch_file(storage("0", -1), {"0": FOUR}), "no valid shape", id="negative storage"
        ),
        pytest.param(
            zip_file(changed(RECORDS, "data/1", header=0)), "is not where", id="wrong offset"
        ),
        pytest.param(
            zip_file([*RECORDS, Record("archive/data/x", b"", size=9999)]), "ends beyond", id="size"
        ),
        pytest.param(torch_file(b"N" + text("x") + b"a", {}), "appends", id="bad pickle"),
        pytest.param(
            b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.",
            "its pickle has no protocol header",
            id="before 1.6",
        ),
    ],
)
def test_what_is_wrong_is_named(data: bytes, reason: str):
    assert reason in refusal(data)


def test_overlapping_records_are_refused():
    inner = zip_file([Record("archive/data/1", b"12345678")])[: 30 + 14 + 3 + 8]
    records = torch_records(BODY, {"0": inner, "1": b"12345678"})
    data = zip_file(records)
    at = data.index(inner)
    assert "'b' overlaps 'w'" in refusal(zip_file(changed(records, "data/1", header=at)))


@pytest.mark.parametrize(
    ("data", "claimed"),
    [
        (zip_file(RECORDS), True),
        (zip_file(RECORDS)[:100], True),
        (zip_file(RECORDS[::-1]), True),
        (zip_file(RECORDS[::-1])[:-1], False),
        (zip_file(RECORDS[1:]), False),
        (zip_file([Record("data.pkl", b"")]), False),
        (zip_file([]), False),
        (b"", False),
    ],
)
def test_matches(data: bytes, claimed: bool):
    assert FORMAT.matches(MemorySource(data)) is claimed
