from __future__ import annotations

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest

from git_theta.core import registry
from git_theta.errors import FormatError
from git_theta.formats import check_layout, hdf5_headers, scan
from git_theta.testing.formats import MemorySource
from tests.support import checkpoints
from tests.support.hdf5_files import F32, ROOT, dataset, hdf5, hdf5_file, header, link, message

FORMAT = registry.format_named("hdf5")
ARRAYS = checkpoints.tensors(rows=20)


def _library_file(libver: str, arrays) -> bytes:
    h5py = pytest.importorskip("h5py")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=libver) as file:
        for name, array in arrays.items():
            file[name] = array
        file.attrs["keras_version"] = "3"
        file["text"] = "words"
        file.create_dataset("packed", data=np.ones((50, 50)), chunks=(10, 10), compression="gzip")
        file.create_dataset("empty", shape=(0, 3), dtype="f4")
        file["hard link"] = file[next(iter(arrays))]
        file["soft"] = h5py.SoftLink("/text")
    return buffer.getvalue()


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_what_the_library_writes_is_found(libver: str) -> None:
    arrays = {f"model/layers/dense_{n}/kernel": np.full((8, n), n, "f4") for n in range(1, 6)}
    arrays |= {
        "half": np.arange(6, dtype="f2").reshape(2, 3),
        "x/int": np.arange(4),
        "x/byte": np.arange(4, dtype="u1"),
        "x/scalar": np.array(7.0),
        "x/big": np.arange(3, dtype=">f4"),
    }
    data = _library_file(libver, arrays)
    layout, warning = scan(MemorySource(data), "model.weights.h5")
    assert (layout.format, warning) == ("hdf5", None)
    assert len(layout.spans) == len(arrays)
    found = {span.name.replace("hard link", next(iter(arrays))): span for span in layout.spans}
    if libver == "latest":  # where it chose to keep many links elsewhere, they are not found
        arrays = {name: array for name, array in arrays.items() if name in found}
    assert len(arrays) == len(found)
    for name, array in arrays.items():
        span = found[name]
        assert data[span.start : span.start + span.length] == array.tobytes()
        assert span.shape == array.shape
    dtypes = {name: found[name].dtype for name in ("half", "x/int", "x/byte", "x/scalar", "x/big")}
    assert list(dtypes.values()) == ["F16", "I64", "U8", "F64", "HDF5_32"]


def test_many_groups_of_the_library_are_found() -> None:
    arrays = {f"g{n % 40}/layer {n}": np.full((4,), n, "f4") for n in range(700)}
    data = _library_file("earliest", arrays)
    names = {span.name for span in FORMAT.scan(MemorySource(data)).spans}
    assert len(names) == 700


def test_the_weights_in_a_keras_file_are_found_and_their_checksum() -> None:
    weights, buffer = hdf5_file(ARRAYS), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("metadata.json", "{}")
        file.writestr("config.json", "{}")
        file.writestr("model.weights.h5", weights)
    data = buffer.getvalue()
    layout, _ = scan(MemorySource(data), "model.keras")
    assert layout.format == "hdf5"
    check_layout(layout, len(data))
    for span in layout.spans:
        assert data[span.start : span.start + span.length] == ARRAYS[span.name].tobytes()
    whole = max(FORMAT.checksums(MemorySource(data)), key=lambda it: it.length)
    assert data[whole.start : whole.start + whole.length] == weights
    assert data[whole.places[0] :][:4] == zlib.crc32(weights).to_bytes(4, "little")


def test_links_in_a_circle_and_several_to_one_dataset_end() -> None:
    size = len(header(link("self", 0), link("one", 0), link("two", 0)))
    root = header(link("self", ROOT), link("one", ROOT + size), link("two", ROOT + size))
    here = ROOT + size + len(dataset((2,), 0, 0))
    data = hdf5(root, dataset((2,), here, 8) + bytes(8))
    assert [span.name for span in FORMAT.scan(MemorySource(data)).spans] == ["one"]


def _one(made: bytes, rest: bytes = b"") -> bytes:
    return hdf5(header(link("a", ROOT + len(header(link("a", 0))))), made + rest)


CONTINUED = message(0x10, struct.pack("<QQ", ROOT, 90))


@pytest.mark.parametrize(
    "data",
    [
        hdf5(header(), end=1 << 40),
        hdf5(header())[:20],
        hdf5(header()).replace(b"\x02\x08\x08", b"\x02\x04\x08"),
        hdf5(header()).replace(b"\n\x02\x08", b"\n\x09\x08"),
        hdf5(header(link("a", 1 << 50))),
        hdf5(header(link("a", 7))),
        hdf5(header(message(6, b"\1\3" + struct.pack("<Q", 1 << 62) + bytes(8)))),
        hdf5(header(message(0x11, struct.pack("<QQ", ROOT, ROOT)))),
        hdf5(header(CONTINUED)),
        hdf5(header(message(0x10, struct.pack("<QQ", 1 << 60, 90)))),
        _one(dataset((2,), 0, 4)),
        _one(dataset((1 << 62, 1 << 62), 0, 8)),
        _one(dataset((2,), 1 << 50, 8)),
    ],
)
def test_what_is_malformed_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        check_layout(FORMAT.scan(MemorySource(data)), len(data))
    assert scan(MemorySource(data), "m.h5")[0].format == "opaque"


def test_a_header_that_goes_on_without_end_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(hdf5_headers, "_MOST_BYTES", 1000)
    endless = b"OCHK" + message(0x10, struct.pack("<QQ", ROOT, 32)) + bytes(4)
    root = header(message(0x10, struct.pack("<QQ", ROOT + len(header(CONTINUED)), len(endless))))
    start = ROOT + len(root)
    endless = b"OCHK" + message(0x10, struct.pack("<QQ", start, len(endless))) + bytes(4)
    with pytest.raises(FormatError, match="larger"):
        FORMAT.scan(MemorySource(hdf5(root, endless)))


@pytest.mark.parametrize(
    ("datatype", "dtype"),
    [(F32, "F32"), (b"\x11\x21" + F32[2:], "HDF5_32"), (b"\x10\x08\0\0\2\0\0\0", "I16")],
)
def test_datatypes(datatype: bytes, dtype: str) -> None:
    size = int.from_bytes(datatype[4:8], "little")
    made = dataset((3,), 0, 3 * size, datatype)
    start = len(_one(made))
    data = _one(dataset((3,), start, 3 * size, datatype), bytes(3 * size))
    (span,) = FORMAT.scan(MemorySource(data)).spans
    assert span.dtype == dtype


def test_a_tree_whose_nodes_are_shared_is_not_walked_for_ever() -> None:
    """Four levels of 4,000 times the same child are 256 billion links in 256 KB."""
    size, count = 24 + 16 * 4000, 4
    tree = ROOT + len(header(message(0x11, bytes(16))))
    links = tree + count * size
    heap = links + 8
    nodes = b"".join(
        struct.pack("<4sBBH16x", b"TREE", 0, count - 1 - n, 4000)
        + struct.pack("<QQ", 0, tree + (n + 1) * size) * 4000
        for n in range(count)
    )
    end = struct.pack("<4sBxH", b"SNOD", 1, 0) + struct.pack("<4s4x3Q", b"HEAP", 8, 0, heap)
    root = header(message(0x11, struct.pack("<QQ", tree, heap)))
    with pytest.raises(FormatError, match="more than those of any model"):
        FORMAT.scan(MemorySource(hdf5(root, nodes + end)))


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize(
    ("shape", "chunks", "count"),
    [((64, 100), (32, 40), 6), ((40, 40), (40, 40), 1), ((600, 64), (16, 64), 38)],
)
def test_the_chunks_of_a_dataset_are_found(libver, shape, chunks, count) -> None:
    h5py = pytest.importorskip("h5py")
    array = np.arange(np.prod(shape), dtype="f4").reshape(shape)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=libver) as file:
        file.create_dataset("group/kernel", data=array, chunks=chunks)
    data = buffer.getvalue()
    layout, warning = scan(MemorySource(data), "model.h5")
    assert (len(layout.spans), warning) == (count, None)
    for span in layout.spans:
        place = span.name.removeprefix("group/kernel[").removesuffix("]")
        row, column = map(int, place.split(","))
        assert span.shape == chunks
        found = np.frombuffer(data, "f4", span.length // 4, span.start).reshape(chunks)
        part = array[row : row + chunks[0], column : column + chunks[1]]
        assert (found[: part.shape[0], : part.shape[1]] == part).all()


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (32, 50), "compression": "gzip"},
        {"chunks": (32, 50), "shuffle": True},
        {"chunks": (2, 5)},
        {"chunks": (32, 50), "maxshape": (None, None)},
    ],
)
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_chunks_that_are_not_plain_or_tiny_stay_in_the_skeleton(libver, options) -> None:
    h5py = pytest.importorskip("h5py")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=libver) as file:
        file.create_dataset("kernel", data=np.ones((64, 100), "f4"), **options)
    layout = FORMAT.scan(MemorySource(buffer.getvalue()))
    # The old index is the same for a dataset that can grow.
    grows = "maxshape" in options and libver == "earliest"
    assert len(layout.spans) == (4 if grows else 0)
    assert layout.hides is not grows


def _in_chunks(layout: bytes, shape=(64, 64), rest: bytes = b"") -> bytes:
    space = struct.pack(f"<BBBB{len(shape)}Q", 2, len(shape), 0, 1, *shape)
    return _one(header(message(1, space), message(3, F32), message(8, layout)), rest)


# Layouts of version 3 (a tree) and 4 (one chunk, one after another, an array), and their places.
_TREE = struct.pack("<BBBQLLL", 3, 2, 3, ROOT, 32, 32, 4)
_V4 = struct.pack("<BBBBBLLL", 4, 2, 0, 3, 4, 32, 32, 4)


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (_TREE, (64, 64)),
        (_TREE.replace(struct.pack("<Q", ROOT), struct.pack("<Q", 1 << 60)), (64, 64)),
        (_V4 + b"\1" + struct.pack("<Q", 1 << 60), (32, 32)),
        (_V4 + b"\2" + struct.pack("<Q", 1 << 60), (64, 64)),
        (_V4 + b"\2" + struct.pack("<Q", 0), (1 << 40, 1 << 40)),
        (_V4 + b"\3\5" + struct.pack("<Q", ROOT), (64, 64)),
        (_V4 + b"\3\5" + struct.pack("<Q", 1 << 61), (64, 64)),
    ],
)
def test_chunks_that_are_nowhere_are_refused(layout, shape) -> None:
    data = _in_chunks(layout, shape)
    with pytest.raises(FormatError):
        check_layout(FORMAT.scan(MemorySource(data)), len(data))
    assert scan(MemorySource(data), "m.h5")[0].format == "opaque"


@pytest.mark.parametrize(
    "layout",
    [
        _TREE[:9],
        _TREE[:2] + b"\xff" + _TREE[3:],
        _TREE[:2] + b"\0" + _TREE[3:],
        _V4,
        _V4[:4] + b"\0" + _V4[5:] + b"\2" + bytes(8),
        _V4 + b"\4" + bytes(20),
        _V4 + b"\2",
        _TREE.replace(struct.pack("<L", 32), bytes(4)),
    ],
)
def test_layouts_that_are_cut_off_or_unknown_give_no_span(layout) -> None:
    assert FORMAT.scan(MemorySource(_in_chunks(layout))).spans == ()


def test_a_tree_of_chunks_that_is_its_own_child_ends() -> None:
    start = len(_in_chunks(_TREE))
    entry = struct.pack("<LL3QQ", 4096, 0, 0, 0, 0, start)
    node = struct.pack("<4sBBH16x", b"TREE", 1, 9, 400) + entry * 400
    layout = _TREE[:3] + struct.pack("<Q", start) + _TREE[11:]
    with pytest.raises(FormatError):
        FORMAT.scan(MemorySource(_in_chunks(layout, rest=node)))
