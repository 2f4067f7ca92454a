from __future__ import annotations

import numpy as np
import pytest

from git_theta.core import registry
from git_theta.errors import FormatError
from git_theta.formats import check_layout, protobuf, scan
from git_theta.testing.formats import MemorySource
from tests.support import checkpoints
from tests.support.onnx_files import blob, model_proto, number, onnx_file, tensor_proto, varint

FORMAT = registry.format_named("onnx")


def _spans(*initializers: bytes):
    data = model_proto(*initializers)
    layout = FORMAT.scan(MemorySource(data))
    check_layout(layout, len(data))
    return [(s.name, s.dtype, s.shape, data[s.start : s.start + s.length]) for s in layout.spans]


def test_what_the_library_writes_is_found() -> None:
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    arrays = checkpoints.tensors(rows=64) | {
        "half": np.arange(6, dtype=np.float16).reshape(2, 3),
        "steps": np.arange(4, dtype=np.int64),
        "scalar": np.array(7.0),
        "flags": np.array([True, False]),
    }
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    listed = helper.make_tensor("listed", onnx.TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    varints = helper.make_tensor("varints", onnx.TensorProto.INT64, [3], [1, 2, 300])
    node = helper.make_node("Constant", [], ["y"], value=tensors[0])
    graph = helper.make_graph([node], "g", [], [], [*tensors, listed, varints])
    data = helper.make_model(graph).SerializeToString()
    layout, warning = scan(MemorySource(data), "model.onnx")
    assert (layout.format, warning) == ("onnx", None)
    found = {span.name: span for span in layout.spans}
    assert found.keys() == {*arrays, "listed"}
    for name, array in (arrays | {"listed": np.array([1, 2, 3], "f4")}).items():
        span = found[name]
        assert data[span.start : span.start + span.length] == array.tobytes()
        assert span.shape == array.shape


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (tensor_proto("w", 16, (2, 1), b"abcd"), ("w", "BF16", (2, 1), b"abcd")),
        (tensor_proto("w", 17, (4,), b"abcd"), ("w", "F8_E4M3", (4,), b"abcd")),
        (tensor_proto("w", 23, (8,), b"abcd"), ("w", "F4", (8,), b"abcd")),
        (tensor_proto("odd", 23, (7,), b"abcd"), ("odd", "U8", (4,), b"abcd")),
        (tensor_proto("int4", 22, (8,), b"abcd"), ("int4", "U8", (4,), b"abcd")),
        (tensor_proto("wrong", 1, (9,), b"abcd"), ("wrong", "U8", (4,), b"abcd")),
        (tensor_proto("d", 11, (), bytes(8), field=10), ("d", "F64", (), bytes(8))),
        (tensor_proto("f", 10, (2,), bytes(8), field=4), ("f", "U8", (8,), bytes(8))),
    ],
)
def test_dtypes(tensor, expected) -> None:
    assert _spans(tensor) == [expected]


def test_what_is_in_no_one_place_stays_in_the_skeleton() -> None:
    external = number(1, 2) + number(2, 1) + blob(8, b"w") + number(14, 1)
    twice = tensor_proto("t", 1, (1,), b"abcd") + blob(9, b"efgh")
    varints = number(1, 1) + number(2, 7) + blob(8, b"i") + blob(7, b"\1")
    assert _spans(external, twice, varints, tensor_proto("e", 1, (0,), b"")) == []


def test_packed_dimensions_and_equal_names() -> None:
    packed = blob(1, varint(2) + varint(1)) + number(2, 1) + blob(8, b"w") + blob(9, bytes(8))
    assert [span[:3] for span in _spans(packed, packed)] == [
        ("w", "F32", (2, 1)),
        ("w#2", "F32", (2, 1)),
    ]


@pytest.mark.parametrize(
    "data",
    [
        onnx_file({})[:-1],
        number(1, 10) + blob(7, b""),
        number(1, 0) + blob(7, b"") + blob(8, b""),
        number(1, 10) + blob(7, b"") + blob(7, b"") + blob(8, b""),
        number(1, 10) + blob(7, b"", claim=1 << 63) + blob(8, b""),
        number(1, 10) + blob(7, b"") + blob(8, b"") + blob(9, b""),
        number(1, 10) + b"\x3b" + blob(8, b""),
        number(1, 10) + b"\x3a" + b"\xff" * 12,
        model_proto(b"\x0a\xff\xff"),
        model_proto(tensor_proto("w", 1, (1 << 63,), b"abcd")),
        model_proto(tensor_proto("w", 1, (1,) * 65, b"abcd")),
        model_proto(number(8, 1)),
        model_proto(blob(1, b"\1" * 700)),
    ],
)
def test_what_is_malformed_is_refused(data) -> None:
    with pytest.raises(FormatError):
        FORMAT.scan(MemorySource(data))
    assert scan(MemorySource(data), "m.onnx")[0].format == "opaque"


def test_more_fields_than_a_model_has_are_not_read(monkeypatch) -> None:
    monkeypatch.setattr(protobuf, "_MOST", 20)
    with pytest.raises(FormatError, match="more fields"):
        FORMAT.scan(MemorySource(model_proto(*[tensor_proto("w", 1, (1,), b"abcd")] * 9)))
