"""Files made to harm: whatever the bytes, a scan ends soon, in little memory, with a layout."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta.core.layout import Layout
from git_theta.errors import FormatError
from git_theta.formats import check_layout, scan
from git_theta.formats.names import Names
from git_theta.formats.pickle_opcodes import OPCODES
from git_theta.formats.pickle_reader import read_pickle
from git_theta.formats.torch_tensors import find_views
from git_theta.testing.formats import MemorySource
from tests.support.flax_files import flax_file
from tests.support.formats import (
    MAX32,
    Record,
    call,
    dict_of,
    entry,
    gguf_file,
    gguf_info,
    gguf_text,
    integer,
    legacy_file,
    list_of,
    npy,
    pickled,
    safetensors,
    storage,
    tensor,
    text,
    torch_file,
    torch_records,
    tuple_of,
    vector,
    zip_file,
)
from tests.support.hdf5_files import hdf5_file
from tests.support.onnx_files import model_proto, tensor_proto

SAFETENSORS = safetensors(
    {
        "__metadata__": {"format": "pt"},
        "layer.weight": entry("F32", [2, 3], 0, 24),
        "layer.bias": entry("BF16", [3], 24, 30),
        "empty": entry("I64", [0], 30, 30),
    },
    bytes(range(30)),
)
_SHARED = storage("0", 4) + b"q\x00"
TORCH = torch_file(
    dict_of(
        {
            "model": dict_of({"w": tensor(_SHARED, (2, 2), (2, 1)), "tied": vector("1", 2)}),
            "view": tensor(b"h\x00", (2,), (1,), 2),
            "object": call("m", "C", integer(300)) + dict_of({"x": list_of(b"N", b"\x88")}) + b"b",
        }
    ),
    {"0": bytes(16), "1": bytes(8), "2": b"unnamed"},
)
ZIP64 = zip_file(
    [Record(it.name, it.data, zip64=True) for it in torch_records(vector("0", 2), {"0": bytes(8)})],
    zip64=True,
)
ARRAY = npy("<f4", "(2, 3)", bytes(range(24)))
NPZ = zip_file([Record("w.npy", ARRAY), Record("odd.npy", b"deflated", method=8), Record("t", b"")])
GGUF = gguf_file(
    [gguf_text("k") + struct.pack("<LLQ", 9, 8, 2) + gguf_text("a") + gguf_text("b")],
    [gguf_info("w", [3, 2], 0, 0), gguf_info("q", [32, 2], 2, 32), gguf_info("s", [], 1, 96)],
    bytes(98),
)
ONNX = model_proto(tensor_proto("w", 1, (2, 3), bytes(24)), tensor_proto("h", 16, (3,), bytes(6)))
HDF5 = hdf5_file({"w": np.zeros((2, 3), "f4"), "b": np.ones(2, "f4")})
FLAX = flax_file({"w": np.zeros((2, 3), "f4"), "b": np.ones(2, "f4")})
PICKLE = pickle.dumps({"w": np.zeros((2, 30), "f4"), "b": [np.ones(40, "f2")]})
LEGACY = legacy_file(
    dict_of({"w": tensor(_SHARED, (2, 2), (2, 1)), "view": tensor(b"h\x00", (2,), (1,), 2)}),
    [("0", 4, bytes(16))],
)
FILES = {
    "gguf": GGUF,
    "onnx": ONNX,
    "hdf5": HDF5,
    "flax": FLAX,
    "pickle": PICKLE,
    "legacy": LEGACY,
    "safetensors": SAFETENSORS,
    "torch": TORCH,
    "series": TORCH + TORCH,
    "zip64": ZIP64,
    "npy": ARRAY,
    "npz": NPZ,
}
FORMATS = {"legacy": "torch", "series": "torch", "zip64": "torch", "npy": "numpy", "npz": "numpy"}
OWN_NAMES = {"safetensors": "x.safetensors", "torch": "x.pt", "numpy": "x.npz", "gguf": "x.gguf"}
OWN_NAMES |= {"onnx": "x.onnx", "hdf5": "x.h5", "flax": "x.msgpack", "pickle": "x.pkl"}


def scanned(data: bytes, *names: str) -> Layout:
    """The layout, which must be possible; no format may fail in a way that it does not foresee.

    A name makes its format read files that do not look like its own.
    """
    for name in names or OWN_NAMES.values():
        layout, warning = scan(MemorySource(data), name)
        check_layout(layout, len(data))
        if layout.format == "opaque":
            assert warning is not None or not data
        else:
            assert warning == layout.remark
        assert " failed: " not in (warning or "")
    return layout


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_sound(name: str):
    layout = scanned(FILES[name])
    assert layout.format == FORMATS.get(name, name)
    assert layout.spans


# A series of zip files that lacks its last one is whole.
@pytest.mark.parametrize("name", sorted(FILES.keys() - {"series"}))
def test_cut_off_at_every_length(name: str):
    data = FILES[name]
    for length in range(len(data)):
        assert scanned(data[:length]) == Layout("opaque")


@pytest.mark.parametrize("name", FILES)
def test_every_byte_wrong(name: str):
    data = FILES[name]
    own = OWN_NAMES[FORMATS.get(name, name)]
    for position in range(len(data)):
        for wrong in (0, 0xFF, data[position] ^ 1):
            scanned(data[:position] + bytes((wrong,)) + data[position + 1 :], own)


@settings(max_examples=300)
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.integers(0), st.binary(min_size=1, max_size=8)), max_size=4),
)
def test_bytes_overwritten_anywhere(name: str, changes: list[tuple[int, bytes]]):
    data = bytearray(FILES[name])
    for position, replacement in changes:
        at = position % len(data)
        data[at : at + len(replacement)] = replacement
    scanned(bytes(data))


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_anything_as_a_file(data: bytes):
    scanned(data)
    scanned(b"PK\x03\x04" + data)
    scanned(b"\x80\x02" + data)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
_ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F4", "U8", "F6_E2M3", "X"]) | _JSON,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | _JSON,
        "data_offsets": st.lists(st.integers(-1, 40), min_size=2, max_size=2) | _JSON,
    }
)


@settings(max_examples=150)
@given(st.dictionaries(st.text(max_size=5), _ENTRY | _JSON, max_size=4))
def test_any_json_as_a_header(header: dict):
    scanned(safetensors(header, bytes(30)), "x.safetensors")


_KNOWN = [bytes((code,)) for code in range(256) if OPCODES[code][0].__name__ != "_unknown"]
_OPERATIONS = st.lists(
    st.sampled_from(_KNOWN)
    | st.sampled_from(
        [vector("0", 1), text("k"), integer(-1), b"q\x00", b"h\x00", b"]", b"}", b"("]
    )
    | st.binary(max_size=3),
    max_size=30,
)


@settings(max_examples=400)
@given(_OPERATIONS)
def test_any_opcodes_as_a_pickle(operations: list[bytes]):
    try:
        list(find_views(read_pickle(pickled(b"".join(operations))), Names()))
    except FormatError:
        return


@settings(max_examples=300)
@given(
    st.integers(-(1 << 70), 1 << 70),
    st.lists(st.integers(-2, 1 << 63), max_size=3),
    st.lists(st.integers(-2, 1 << 63), max_size=3),
    st.integers(-2, 1 << 63),
    st.sampled_from(["FloatStorage", "UntypedStorage", "ByteStorage", "QUInt4x2Storage"]),
)
def test_any_numbers_in_a_tensor(offset, shape, strides, capacity, kind):
    stored = storage("0", capacity, kind)
    scanned(torch_file(tensor(stored, tuple(shape), tuple(strides), offset), {"0": bytes(16)}))


def test_nothing_in_a_pickle_is_run(tmp_path: Path):
    marker = tmp_path / "marker"
    command = text(f"touch {marker}")
    python = text(f"open({str(marker)!r}, 'w')")
    bodies = [
        call("os", "system", command),
        call("builtins", "eval", python),
        call("builtins", "getattr", call("builtins", "__import__", text("os")), text("system")),
        text("os") + text("system") + b"\x93" + tuple_of(command) + b"R",
        call("subprocess", "Popen", command)[:-1] + b"\x81",
        call("os", "system", command)[:-1] + b"}\x92",
        dict_of({"w": call("torch._utils", "_rebuild_parameter", call("os", "system", command))}),
        call("torch.jit._pickle", "restore_type_tag", command) + dict_of({"x": b"N"}) + b"b",
        tuple_of(call("os", "system", command)) + b"Q",
    ]
    for body in bodies:
        scanned(torch_file(body, {"0": bytes(16)}))
    assert not marker.exists()


def test_nothing_named_in_a_pickle_is_imported():
    scanned(torch_file(call("antigravity", "geohash") + call("torch", "Tensor") + b"0", {}))
    assert "antigravity" not in sys.modules


def doubling(levels: int) -> bytes:
    """A dict in which two keys lead to one inner dict, and so on: 2^levels paths to a tensor."""
    body = dict_of({"w": vector("0", 1)}) + b"q\x00"
    for _ in range(levels):
        body += b"}(" + text("a") + b"h\x00" + text("b") + b"h\x00" + b"uq\x00"
    return body


def test_many_paths_to_one_tensor():
    assert len(scanned(torch_file(doubling(200), {"0": bytes(4)})).spans) == 1


def test_parameters_that_share_their_state():
    body = vector("0", 1) + b"q\x00"
    for _ in range(100):
        args = (b"h\x00", b"\x88", b"N", b"h\x00")
        body += call("torch._utils", "_rebuild_parameter_with_state", *args) + b"q\x00"
    assert len(scanned(torch_file(body, {"0": bytes(4)})).spans) == 1


def test_structures_that_contain_themselves():
    bodies = [
        b"]q\x00h\x00a",
        b"}q\x00(" + text("x") + b"h\x00" + b"u",
        b"]q\x00" + tuple_of(b"h\x00", b"h\x00") + b"a",
        b"]q\x00" + call("torch._utils", "_rebuild_parameter", b"h\x00") + b"a",
        call("m", "C") + b"q\x00h\x00b",
        call("m", "C") + b"q\x00h\x00a",
        call("m", "C") + b"q\x00" + text("k") + b"h\x00s",
    ]
    for body in bodies:
        scanned(torch_file(body, {}))


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        (b"](", b"e"),
        (b"((", b"tt"),
        (b"}(" + text("k"), b"u"),
        (b"cm\nC\n(", b"tR"),
        (b"ctorch._utils\n_rebuild_parameter\n(", b"tR"),
        (b"(", b"tQ"),
    ],
    ids=["lists", "tuples", "dicts", "calls", "parameters", "persistent ids"],
)
def test_deep_nesting(opening: bytes, closing: bytes):
    body = opening * 100_000 + vector("0", 1) + closing * 100_000
    layout, _ = scan(MemorySource(torch_file(body, {"0": bytes(4)})), "x")
    assert [(span.name, span.dtype) for span in layout.spans] == [("data/0", "U8")]


def test_long_names_are_not_multiplied():
    # 100 aliases of a tensor below a key of 64 KiB, and a key of 4 MB at each of 200 levels.
    aliases = b"".join(text(str(number)) + b"h\x00" for number in range(100_000))
    long = b"}(" + text("x" * 65_000) + b"}(" + text("w") + vector("0", 1) + b"q\x00" + aliases
    assert scanned(torch_file(long + b"uu", {"0": bytes(4)})) == Layout("opaque")
    key = text("y" * (1 << 22)) + b"q\x00"
    deep = b"}(" + key + (b"}(h\x00" * 200) + vector("0", 1) + b"u" * 201
    assert scanned(torch_file(deep, {"0": bytes(4)})) == Layout("opaque")


@pytest.mark.parametrize(
    "records",
    [
        pytest.param([("archive/data/0", 0)] * 2, id="the same record twice"),
        pytest.param([("archive/data/0", 0), ("archive/data/1", 0)], id="two names, one header"),
    ],
)
def test_records_that_share_their_bytes(records: list[tuple[str, int]]):
    body = list_of(vector("0", 1), vector("1", 1))
    made = [Record(name, bytes(99), header=header) for name, header in records]
    assert scanned(zip_file([*torch_records(body, {}), *made])) == Layout("opaque")


@pytest.mark.parametrize("lie", [0, 1, 1 << 31, MAX32, 1 << 32, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("field", ["start", "length", "count", "at"])
def test_zip64_lies(field: str, lie: int):
    scanned(zip_file(torch_records(vector("0", 2), {"0": bytes(8)}), zip64=True, **{field: lie}))


def test_a_tail_full_of_end_records():
    scanned(TORCH + b"PK\x05\x06" * 20_000)
    scanned(b"PK\x03\x04" + b"PK\x05\x06" + b"\xff" * 22 + b"PK\x05\x06" * 16_000)


_LITERAL = st.lists(
    st.sampled_from(["{", "'descr': ", "'<f4'", "'|O'", ", ", "'shape': ", "(", "3, ", ")", "}"])
    | st.text(max_size=3),
    max_size=20,
)


@settings(max_examples=200)
@given(_LITERAL, st.integers(0, 4), st.integers(0, (1 << 16) - 1))
def test_any_text_as_the_header_of_an_array(parts: list[str], version: int, length: int):
    text = "".join(parts).encode("utf-8", "replace")
    scanned(b"\x93NUMPY" + bytes((version, 0)) + length.to_bytes(2, "little") + text, "x.npy")
    scanned(npy("".join(parts), "(3,)", bytes(12)), "x.npy")


@pytest.mark.parametrize(
    ("descr", "shape"),
    [
        ("<f4", "(9223372036854775807, 9223372036854775807)"),
        ("<U999999999", "(2,)"),
        ("<f4", f"({'9999999999999999999, ' * 64})"),
        ("|V0", "(9999999999999999999,)"),
        ("<f4", f"({' ' * 60_000})"),
        ("<f4", f"({'1' * 60_000})"),
        ("<f4" + " " * 60_000, "(1,)"),
    ],
)
def test_arrays_that_ask_for_much(descr: str, shape: str):
    data = npy(descr, shape, bytes(8))
    assert scanned(data) == Layout("opaque")
    assert scanned(zip_file([Record("w.npy", data)])) == Layout("numpy", hides=True)


def test_python_objects_in_an_array_are_not_run(tmp_path: Path):
    marker = tmp_path / "marker"
    run = pickled(call("os", "system", text(f"touch {marker}")))
    data = npy("|O", "(1,)", run)
    assert scanned(data) == Layout("opaque")
    assert scanned(zip_file([Record("w.npy", data)])) == Layout("numpy", hides=True)
    assert not marker.exists()


@settings(max_examples=300)
@given(
    st.lists(st.binary(max_size=40), max_size=2),
    st.lists(st.integers(0, 1 << 64 - 1), max_size=3),
    st.sampled_from([0, 1, 2, 14, 28, 39, 99]),
    st.integers(0, (1 << 64) - 1) | st.integers(0, 128),
    st.sampled_from([0, 1, 2, 250_000, 250_001, (1 << 64) - 1]),
)
def test_any_numbers_in_gguf(entries, dimensions, kind, offset, count):
    info = gguf_info("w", dimensions, kind, offset)
    scanned(gguf_file([], [info], bytes(96)), "x.gguf")
    scanned(gguf_file(entries, [info], bytes(96), tensors=count, keys=count), "x.gguf")


def test_nesting_in_gguf():
    deep = gguf_text("k") + struct.pack("<L", 9) + struct.pack("<LQ", 9, 1) * 10_000
    assert scanned(gguf_file([deep], [])) == Layout("opaque")


@pytest.mark.parametrize(
    "changes",
    [
        {"keys": list_of(text("0"), text("0"))},
        {"keys": list_of(text("1"))},
        {"keys": list_of()},
        {"keys": list_of(integer(0))},
        {"keys": b"N"},
        {"protocol": 1000},
    ],
    ids=str,
)
def test_keys_of_old_torch_files_that_lie(changes: dict):
    assert scanned(legacy_file(vector("0", 2), [("0", 2, bytes(8))], **changes)) == Layout("opaque")


@pytest.mark.parametrize("count", [0, 1, 3, 1 << 32, 1 << 62, (1 << 64) - 1])
def test_storages_of_old_torch_files_that_lie(count: int):
    assert scanned(legacy_file(vector("0", 2), [("0", count, bytes(8))])) == Layout("opaque")
    if count < 1 << 63:
        body = vector("0", count)
        assert scanned(legacy_file(body, [("0", count, bytes(3))])).format in ("opaque", "torch")


def test_nothing_in_an_old_torch_file_is_run(tmp_path: Path):
    marker = tmp_path / "marker"
    body = call("os", "system", text(f"touch {marker}"))
    assert scanned(legacy_file(body, [])) == Layout("torch")
    assert not marker.exists()


def test_bombs_stay_within_time_and_memory():
    found = subprocess.run(
        [sys.executable, "-m", "tests.hostile.format_bombs"],
        cwd=Path(__file__).parents[2],
        # Measuring coverage there would measure the tracer.
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    rows = [json.loads(line) for line in found.stdout.splitlines()]
    assert len(rows) == 11
    for name, seconds, peak_mib, format_, warning in rows:
        assert (format_, " failed: " in warning) == ("opaque", False), (name, warning)
        # Measured: 12 s at most, with 760 MiB, of which the file itself is up to 63 MiB.
        assert seconds < 60, (name, seconds)
        assert peak_mib < 1024, (name, peak_mib)
