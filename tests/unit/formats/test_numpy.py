"""Files that NumPy itself writes: every plain array is found, and read back from its span alone."""

from __future__ import annotations

import io
import zipfile
import zlib

import ml_dtypes
import numpy as np
import pytest

from git_theta.core.layout import Layout
from git_theta.errors import FormatError
from git_theta.formats import scan
from git_theta.formats.npy_header import read_header
from git_theta.formats.numpy_arrays import FORMAT
from git_theta.testing.formats import MemorySource
from tests.support import checkpoints
from tests.support.formats import Record, tensor_bytes, zip_file

KNOWN = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
    "complex64": "C64",
    "complex128": "C128",
}
MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4)


def layout_of(data: bytes, name: str = "x") -> Layout:
    layout, warning = scan(MemorySource(data), name)
    assert layout.format == "numpy"
    assert warning == layout.remark
    return layout


def compressed(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", KNOWN)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (2, 1, 3), (2, 0)], ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_dtype_and_shape(dtype: str, shape: tuple[int, ...], order: str):
    random = np.random.default_rng(0).integers(0, 100, shape)
    array = np.asarray(random).astype(dtype, order=order)
    data = checkpoints.npy(array)
    layout = layout_of(data)
    (span,) = layout.spans
    assert (span.name, span.dtype, span.shape) == ("array", KNOWN[dtype], shape)
    assert tensor_bytes(data, layout, "array") == array.tobytes()


@pytest.mark.parametrize(
    ("array", "dtype", "length"),
    [
        (MATRIX.astype(">f4"), ">f4", 48),
        (np.array(["a", "bcd"]), "<U3", 24),
        (np.array([b"a", b"bcd"]), "|S3", 6),
        (np.array(["2020-01-01"], "M8[ns]"), "<M8[ns]", 8),
        (MATRIX.astype(ml_dtypes.bfloat16), "<V2", 24),
    ],
)
def test_other_dtypes_are_kept_as_bytes(array: np.ndarray, dtype: str, length: int):
    data = checkpoints.npy(array)
    (span,) = layout_of(data).spans
    assert (span.dtype, span.shape, span.length) == (dtype, array.shape, length)
    assert data[span.start :] == array.tobytes()


def test_a_transposed_array_has_strides():
    (span,) = layout_of(checkpoints.npy(MATRIX.T)).spans
    assert (span.shape, span.strides) == ((4, 3), (1, 4))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version(version: tuple[int, int]):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, MATRIX, version=version)
    layout = layout_of(buffer.getvalue())
    assert tensor_bytes(buffer.getvalue(), layout, "array") == MATRIX.tobytes()


def test_the_shape_of_python_2_and_of_other_writers():
    for literal in (
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (3L, 4L), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4)}",
        b"{'descr':'<f4','fortran_order':False,'shape':(3,4),}   \n",
    ):
        data = b"\x93NUMPY\1\0" + len(literal).to_bytes(2, "little") + literal + bytes(48)
        assert layout_of(data).spans[0].shape == (3, 4)


def test_arrays_one_after_the_other_in_one_file():
    data = checkpoints.npy(MATRIX)
    layout = layout_of(data + data)
    assert layout.spans == layout_of(data).spans
    assert FORMAT.extras(MemorySource(data + data)) != FORMAT.extras(MemorySource(data))


def test_python_objects_are_not_read():
    data = checkpoints.npy(np.array([{"a": 1}], dtype=object))
    layout, warning = scan(MemorySource(data), "x.npy")
    assert layout == Layout("opaque")
    assert "Python objects" in (warning or "")


def test_an_array_of_records_is_opaque():
    data = checkpoints.npy(np.zeros(3, [("a", "<f4"), ("b", "<i4")]))
    layout, warning = scan(MemorySource(data), "x.npy")
    assert layout == Layout("opaque")
    assert "of records" in (warning or "")


def test_the_members_of_an_archive():
    records = np.zeros(3, [("a", "<f4")])
    odd = np.array([None, {}], dtype=object)
    buffer = io.BytesIO()
    np.savez(buffer, **{"layer/é.weight": MATRIX, "t": MATRIX.T, "records": records, "odd": odd})
    layout = layout_of(buffer.getvalue())
    assert [span.name for span in layout.spans] == ["layer/é.weight", "t"]
    assert layout.remark is None
    for name, array in (("layer/é.weight", MATRIX), ("t", MATRIX.T)):
        assert tensor_bytes(buffer.getvalue(), layout, name) == array.tobytes()


def test_deflated_members_are_spans_of_what_they_are() -> None:
    large = np.random.default_rng(0).standard_normal((40, 30)).astype("f4")
    data = compressed(w=large, half=large.astype("f2"), small=MATRIX, big=large.astype(">f4"))
    layout = layout_of(data)
    assert [(span.name, span.dtype) for span in layout.spans] == [
        ("w", "DEFLATED_F32"),
        ("half", "DEFLATED_F16"),
        ("small", "DEFLATED_F32"),
    ]
    assert layout.remark is None
    for span, dtype in zip(layout.spans[:2], ("f4", "f2"), strict=True):
        stream = data[span.start : span.start + span.length]
        array = np.load(io.BytesIO(zlib.decompress(stream, -15)))
        assert (array == large.astype(dtype)).all()
    # Theirs are of what they inflate to: whoever renews those of a file must not touch them.
    starts = {each.start for each in FORMAT.checksums(MemorySource(data))}
    assert starts.isdisjoint(span.start for span in layout.spans)


@pytest.mark.parametrize(("count", "said"), [(1, "1 of its arrays is"), (2, "2 of its arrays are")])
def test_members_that_are_compressed_otherwise_stay_in_the_skeleton(count: int, said: str):
    def packed(change: int) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_BZIP2) as archive:
            for number in range(count):
                archive.writestr(f"{number}.npy", checkpoints.npy(MATRIX + change))
        return buffer.getvalue()

    data, other = packed(0), packed(1)
    layout = layout_of(data)
    assert layout.spans == ()
    assert (layout.remark or "").startswith(f"{said} compressed")
    extras = [FORMAT.extras(MemorySource(it)) for it in (data, other, data)]
    assert extras[0] == extras[2] != extras[1]


def test_a_deflated_member_that_is_none_stays_in_the_skeleton() -> None:
    noise = np.random.default_rng(0).bytes(5000)
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = bomb.compress(bytes(100 << 20)) + bomb.flush()
    for content in (noise, zeros, b"\3\0" + noise):
        data = zip_file([Record("a.npy", content, method=8), Record("b.npy", content, method=8)])
        assert FORMAT.scan(MemorySource(data)).spans == ()


@pytest.mark.parametrize(
    ("literal", "reason"),
    [
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, x), }", "not one that NumPy"),
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (3 4), }", "has the shape"),
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (,), }", "has the shape"),
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }" % (b"9" * 5000), "shape"),
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }" % (b"1," * 70), "shape"),
        (b"{'descr': 'float', 'fortran_order': False, 'shape': (3,), }", "its dtype 'float'"),
        (b"{'descr': '<f4', 'fortran_order': 1, 'shape': (3,), }", "not one that NumPy"),
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (99,), }", "it is cut off|cut off: "),
        (b"(" * 60_000, "not one that NumPy"),
    ],
)
def test_malformed_headers(literal: bytes, reason: str):
    data = b"\x93NUMPY\1\0" + len(literal).to_bytes(2, "little") + literal + bytes(48)
    with pytest.raises(FormatError, match=reason):
        read_header(MemorySource(data), 0, len(data))


@pytest.mark.parametrize("head", [b"\4\0\1\0", b"\2\0\xff\xff\xff\xff", b"\1\0\xff\xff", b"\1\0"])
def test_malformed_prefixes(head: bytes):
    data = b"\x93NUMPY" + head
    assert scan(MemorySource(data), "x.npy")[0] == Layout("opaque")
