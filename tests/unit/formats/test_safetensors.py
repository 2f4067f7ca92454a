from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.numpy import load

from git_theta.core.layout import Layout, TensorSpan
from git_theta.formats import scan
from git_theta.formats.safetensors import FORMAT
from git_theta.testing.formats import MemorySource
from tests.support.formats import entry, safetensors, tensor_bytes

A = {"a": entry("F32", [2], 0, 8)}


def read(data: bytes) -> Layout:
    layout, warning = scan(MemorySource(data), "model.safetensors")
    assert warning == layout.remark
    return layout


def refusal(data: bytes) -> str:
    layout, warning = scan(MemorySource(data), "model.safetensors")
    assert layout == Layout("opaque")
    assert warning is not None
    assert warning.endswith("It is stored whole and comes back exactly, byte for byte")
    return warning


def test_a_file_of_the_safetensors_library():
    from safetensors.numpy import save

    arrays = {
        "layer.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "layer.bias": np.arange(3, dtype=np.float16),
        "scalar": np.array(7, np.int64),
        "empty": np.zeros((0, 4), np.float64),
        "flags": np.array([True, False]),
        "half": np.arange(4).astype(ml_dtypes.bfloat16),
    }
    data = save(arrays, metadata={"format": "pt"})
    layout = read(data)
    assert {span.name: span.shape for span in layout.spans} == {
        name: array.shape for name, array in arrays.items()
    }
    for name, array in arrays.items():
        assert tensor_bytes(data, layout, name) == array.tobytes()
    dtypes = {span.name: span.dtype for span in layout.spans}
    assert dtypes == {
        "layer.weight": "F32",
        "layer.bias": "F16",
        "scalar": "I64",
        "empty": "F64",
        "flags": "BOOL",
        "half": "BF16",
    }


def test_spans_stand_in_file_order_whatever_the_header_says():
    header = {"b": entry("U8", [2], 4, 6), "a": entry("F32", [1], 0, 4), "__metadata__": {"k": "v"}}
    start = 8 + len(json.dumps(header))
    layout = read(safetensors(header, bytes(6)))
    assert layout.spans == (
        TensorSpan("a", "F32", (1,), start, 4),
        TensorSpan("b", "U8", (2,), start + 4, 2),
    )


@pytest.mark.parametrize(
    ("header", "size"),
    [
        pytest.param(A, 8, id="exact"),
        pytest.param(A, 20, id="bytes after the last tensor"),
        pytest.param({"a": entry("F32", [1], 4, 8)}, 8, id="hole before the first"),
        pytest.param({"a": entry("U8", [1], 0, 1), "b": entry("U8", [1], 3, 4)}, 4, id="hole"),
        pytest.param(json.dumps(A) + "     ", 8, id="padding"),
        pytest.param({"a": entry("MX7.s-1", [3], 0, 8)}, 8, id="unknown dtype of unknown size"),
        pytest.param({"a": entry("F4", [2, 3], 0, 3)}, 3, id="4-bit, packed"),
        pytest.param({"a": entry("F6_E2M3", [4], 0, 3)}, 3, id="6-bit, packed"),
        pytest.param({"a": entry("F32", [], 0, 4)}, 4, id="0-d"),
        pytest.param({"": entry("F32", [], 0, 4)}, 4, id="no name"),
        pytest.param({"a": entry("F32", [0, 3], 0, 0)}, 0, id="no elements"),
        pytest.param(
            {"b": entry("U8", [4], 0, 4), "a": entry("U8", [0], 4, 4), "c": entry("I8", [0], 0, 0)},
            4,
            id="no elements, beside others",
        ),
        pytest.param({"a": {**A["a"], "note": [1]}}, 8, id="a further key"),
        pytest.param({}, 0, id="no tensors"),
    ],
)
def test_what_is_unusual_is_read(header: dict | str, size: int):
    expected = json.loads(header) if isinstance(header, str) else header
    layout = read(safetensors(header, bytes(size)))
    assert {span.name for span in layout.spans} == set(expected)


@pytest.mark.parametrize(
    ("header", "size", "remark"),
    [
        (A, 8, None),
        (A, 20, "12 bytes lie behind its tensors"),
        ({"a": entry("F32", [1], 4, 8)}, 8, "4 bytes lie between its tensors"),
        ({"a": entry("U8", [1], 0, 1), "b": entry("U8", [1], 3, 4)}, 4, "2 bytes lie between"),
        ({}, 0, None),
        ({}, 1, "1 byte lies behind"),
    ],
)
def test_what_the_safetensors_library_refuses_is_read_and_said_to_be_so(header, size, remark):
    content = safetensors(header, bytes(size))
    _, warning = scan(MemorySource(content), "m.safetensors")
    assert (warning is None) == (remark is None)
    if remark is None:
        load(content)
    else:
        assert warning.startswith(remark)
        with pytest.raises(SafetensorError):
            load(content)


def test_lone_surrogates_in_names_are_kept():
    (span,) = read(
        safetensors('{"x\\ud800":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}', b"1")
    ).spans
    assert span.name == "x\ud800"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        pytest.param('{"a":{},"a":{}}', "'a' appears twice in its header", id="duplicate"),
        pytest.param('{"a":{"dtype":"F32","dtype":"F32"}}', "'dtype' appears twice", id="inner"),
        pytest.param("[1]", "does not begin with '{'", id="list"),
        pytest.param(' {"a":1}', "does not begin with '{'", id="leading space"),
        pytest.param("{", "is not JSON", id="cut off"),
        pytest.param(b'{"\xff":1}', "is not JSON", id="not UTF-8"),
        pytest.param('{"a":1}', "tensor 'a' is not described by an object", id="number"),
        pytest.param({"a": {"shape": [], "data_offsets": [0, 1]}}, "no dtype", id="no dtype"),
        pytest.param({"a": entry(3, [], 0, 1)}, "no dtype", id="dtype 3"),
        pytest.param({"a": entry("F\u00e9", [1], 0, 1)}, "no valid dtype", id="dtype not ASCII"),
        pytest.param({"a": entry("F" * 65, [1], 0, 1)}, "no valid dtype", id="long dtype"),
        pytest.param({"a": entry("U8", None, 0, 1)}, "no shape", id="no shape"),
        pytest.param({"a": entry("U8", [-1], 0, 1)}, "no valid shape", id="negative"),
        pytest.param({"a": entry("U8", [True], 0, 1)}, "no valid shape", id="bool in shape"),
        pytest.param({"a": entry("U8", [1.0], 0, 1)}, "no valid shape", id="float in shape"),
        pytest.param({"a": entry("U8", [1 << 62, 0], 0, 0)}, "no valid shape", id="huge"),
        pytest.param({"a": entry("U8", [1] * 65, 0, 1)}, "number of dimensions", id="65-d"),
        pytest.param({"a": entry("U8", [1], 1, 0)}, "data_offsets '[1, 0]'", id="backwards"),
        pytest.param({"a": entry("U8", [1], -1, 0)}, "data_offsets '[-1, 0]'", id="before"),
        pytest.param({"a": entry("U8", [1], False, True)}, "[begin, end]", id="bools"),
        pytest.param({"a": {**A["a"], "data_offsets": [0, 8, 9]}}, "[begin, end]", id="three"),
        pytest.param({"a": {**A["a"], "data_offsets": 8}}, "[begin, end]", id="one number"),
        pytest.param({"a": entry("F32", [25], 0, 100)}, "beyond the file's", id="past the end"),
        pytest.param({"a": entry("F32", [2], 0, 7)}, "reaches beyond its 7 bytes", id="too short"),
        pytest.param(
            {"a": entry("F32", [1], 0, 8)}, "8 bytes, but F32 [1] needs 4 bytes", id="too long"
        ),
        pytest.param(
            {"a": entry("F4", [3], 0, 2)}, "2 bytes, but F4 [3] needs 12 bits", id="half a byte"
        ),
        pytest.param(
            {"a": entry("U8", [3], 0, 3), "b": entry("U8", [2], 2, 4)},
            "'b' overlaps 'a'",
            id="overlap",
        ),
        pytest.param(
            {"a": entry("U8", [4], 0, 4), "b": entry("U8", [0], 2, 2)},
            "'b' overlaps 'a'",
            id="inside",
        ),
        pytest.param('{"a":' + "9" * 5000 + "}", "is not JSON", id="a number of 5000 digits"),
        pytest.param('{"a":' * 100_000, "nested too deeply", id="nesting"),
        pytest.param("{" + "[]," * 8_000_000, "more parts", id="many parts"),
    ],
)
def test_what_is_wrong_is_named(header: dict | str | bytes, reason: str):
    assert reason in refusal(safetensors(header, bytes(8)))


def test_the_header_length_is_bounded():
    assert "over 100 MB" in refusal(safetensors(A, bytes(8), claim=100_000_001))
    assert "ends beyond the file's" in refusal(safetensors(A, bytes(8), claim=1000))
    assert "too few" in refusal(b"short")


def test_a_file_cut_off_anywhere_is_refused():
    data = safetensors(A, bytes(8))
    for length in range(1, len(data)):
        refusal(data[:length])


@pytest.mark.parametrize(
    ("data", "claimed"),
    [
        (safetensors(A, bytes(8)), True),
        (safetensors(A), True),
        (safetensors({}), True),
        (b"", False),
        (bytes(8), False),
        (safetensors("[]"), False),
        (safetensors(A, claim=1 << 40), False),
    ],
)
def test_matches(data: bytes, claimed: bool):
    assert FORMAT.matches(MemorySource(data)) is claimed


_TENSORS = st.dictionaries(
    st.text(max_size=8).filter(lambda name: name != "__metadata__"),
    st.tuples(
        st.sampled_from(["F32", "BF16", "U8", "BOOL", "C64", "I16"]),
        st.lists(st.integers(0, 4), max_size=3),
        st.integers(0, 5),
    ),
    max_size=6,
)


@settings(max_examples=150)
@given(_TENSORS, st.randoms(use_true_random=False), st.binary(max_size=6))
def test_any_well_formed_file_is_read(tensors, random, after):
    sizes = {"F32": 4, "BF16": 2, "U8": 1, "BOOL": 1, "C64": 8, "I16": 2}
    header, end = {}, 0
    for name, (dtype, shape, hole) in tensors.items():
        begin = end + hole
        end = begin + int(np.prod(shape, dtype=int)) * sizes[dtype]
        header[name] = entry(dtype, shape, begin, end)
    lines = list(header.items())
    random.shuffle(lines)
    layout = read(safetensors(dict(lines), random.randbytes(end) + after))
    start = layout.spans and min(span.start for span in layout.spans)
    first = layout.spans and min(line["data_offsets"][0] for line in header.values())
    found = {
        span.name: entry(
            span.dtype,
            list(span.shape),
            span.start - start + first,
            span.start + span.length - start + first,
        )
        for span in layout.spans
    }
    assert found == header
    assert [span.name for span in layout.spans if span.length] == [
        name for name, (_, shape, _) in tensors.items() if 0 not in shape
    ]
