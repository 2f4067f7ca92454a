"""Files that the gguf library writes: every tensor is found where its reader finds it."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from git_theta.core.layout import Layout, TensorSpan
from git_theta.errors import FormatError
from git_theta.formats import scan
from git_theta.formats.gguf import _TYPES, FORMAT
from git_theta.testing.formats import MemorySource
from tests.support.formats import gguf_file, gguf_info, gguf_text

NUMBERS = {
    "F32": np.float32,
    "F16": np.float16,
    "F64": np.float64,
    "I8": np.int8,
    "I16": np.int16,
    "I32": np.int32,
    "I64": np.int64,
}
KINDS = gguf.GGMLQuantizationType


def layout_of(data: bytes) -> Layout:
    layout, warning = scan(MemorySource(data), "x.gguf")
    assert (layout.format, warning) == ("gguf", None)
    return layout


def reason_of(data: bytes) -> str:
    with pytest.raises(FormatError) as caught:
        FORMAT.scan(MemorySource(data))
    return caught.value.message


def with_metadata(writer: gguf.GGUFWriter) -> None:
    """Values of every type, and arrays of them."""
    writer.add_name("a name")
    writer.add_uint8("u8", 1)
    writer.add_int16("i16", -1)
    writer.add_float64("f64", 0.5)
    writer.add_bool("b", True)
    writer.add_uint64("u64", 1 << 40)
    writer.add_token_list([f"token {number}" for number in range(5000)])
    writer.add_token_scores([0.5] * 5000)


def written(path: Path, tensors: dict[str, tuple[np.ndarray, int | None]], alignment: int = 32):
    """The bytes of a file with these arrays, each of its own or of a raw type."""
    writer = gguf.GGUFWriter(path, "llama")
    with_metadata(writer)
    if alignment != 32:
        writer.add_custom_alignment(alignment)
    for name, (array, kind) in tensors.items():
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def test_the_types_are_those_of_the_library():
    known = {kind.value: kind for kind in KINDS if kind.value in _TYPES}
    assert len(known) >= 30
    for number, kind in known.items():
        ours = _TYPES[number]
        assert ours.dtype.removeprefix("GGUF_") == kind.name
        assert (ours.elements, ours.size) == gguf.GGML_QUANT_SIZES[kind]


@pytest.mark.parametrize("alignment", [8, 32, 4096])
def test_numbers_and_blocks(tmp_path: Path, alignment: int):
    random = np.random.default_rng(0)
    tensors: dict[str, tuple[np.ndarray, int | None]] = {
        name: (random.integers(0, 100, (3, 5)).astype(kind), None) for name, kind in NUMBERS.items()
    }
    tensors["BF16"] = (random.integers(0, 255, (3, 10), np.uint8), KINDS.BF16)
    for kind, (elements, size) in gguf.GGML_QUANT_SIZES.items():
        if elements > 1:
            blocks = random.integers(0, 255, (2, 3 * size), np.uint8)
            tensors[f"GGUF_{kind.name}"] = (blocks, kind)
    data = written(tmp_path / "x.gguf", tensors, alignment)
    layout = layout_of(data)
    reader = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    assert {span.name for span in layout.spans} == set(tensors)
    for span in layout.spans:
        array = tensors[span.name][0]
        theirs = reader[span.name]
        assert span.dtype == span.name
        assert span.shape == ((3, 5) if span.name == "BF16" else array.shape)
        assert (span.start, span.length) == (theirs.data_offset, theirs.n_bytes)
        assert data[span.start : span.start + span.length] == array.tobytes()


def test_the_library_reads_a_rebuilt_file(tmp_path: Path):
    blocks = np.arange(2 * 36, dtype=np.uint8).reshape(2, 36)
    first = np.ones((3, 5), np.float32)
    data = written(tmp_path / "x.gguf", {"a": (first, None), "b": (blocks, KINDS.Q4_0)}, 64)
    wanted = [
        TensorSpan("b", "GGUF_Q4_0", (2, 36), 0, 72),
        TensorSpan("c", "F16", (7,), 0, 14),
    ]
    rebuilt = FORMAT.rebuild(MemorySource(data), wanted)
    fills = [blocks.tobytes(), np.ones(7, np.float16).tobytes(), b""]
    (tmp_path / "y.gguf").write_bytes(
        b"".join(part for pair in zip(rebuilt.pieces, fills, strict=True) for part in pair)
    )
    reader = gguf.GGUFReader(tmp_path / "y.gguf")
    assert reader.get_field("general.name").contents() == "a name"
    assert [tensor.name for tensor in reader.tensors] == ["b", "c"]
    np.testing.assert_array_equal(reader.tensors[0].data, blocks)
    np.testing.assert_array_equal(reader.tensors[1].data, np.ones(7, np.float16))


@pytest.mark.parametrize(
    "span",
    [
        TensorSpan("a", "U8", (3,), 0, 3),
        TensorSpan("a", "GGUF_TYPE_99", (3,), 0, 3),
        TensorSpan("a", "F32", (2, 2), 0, 16, 0, (1, 2)),
    ],
)
def test_what_cannot_be_rebuilt(span: TensorSpan):
    with pytest.raises(FormatError, match="cannot be written into a GGUF file"):
        FORMAT.rebuild(MemorySource(gguf_file([], [])), [span])


def test_a_type_of_the_future_reaches_to_the_next_tensor():
    infos = [gguf_info("new", [7], 99, 0), gguf_info("f", [2], 0, 32), gguf_info("n", [1], 98, 64)]
    layout = layout_of(gguf_file([], infos, bytes(70)))
    found = {span.name: (span.dtype, span.length) for span in layout.spans}
    assert found == {"new": ("GGUF_TYPE_99", 32), "f": ("F32", 8), "n": ("GGUF_TYPE_98", 6)}


def test_scalars_and_nested_arrays():
    nested = gguf_text("k") + struct.pack("<LLQLQ", 9, 9, 1, 8, 2) + gguf_text("a") + gguf_text("")
    layout = layout_of(gguf_file([nested], [gguf_info("x", [], 0, 0)], bytes(4)))
    assert layout.spans[0].shape == ()


def test_versions():
    info = gguf_info("x", [1], 0, 0)
    assert layout_of(gguf_file([], [info], bytes(4), version=2)).spans
    for version in (0, 1, 4, 3 << 24):
        data = gguf_file([], [info], bytes(4), version=version)
        assert not FORMAT.matches(MemorySource(data))
        assert "version 2 or 3" in reason_of(data)


def aligned_to(kind: int, value: int) -> bytes:
    return gguf_text("general.alignment") + struct.pack("<LL", kind, value)


@pytest.mark.parametrize(
    ("entries", "infos", "reason"),
    [
        ([aligned_to(4, 0)], [], "power of two"),
        ([aligned_to(4, 24)], [], "power of two"),
        ([aligned_to(4, 1 << 31)], [], "power of two"),
        ([aligned_to(5, 32)], [], "power of two"),
        ([gguf_text("k") + struct.pack("<L", 13)], [], "a value of type 13"),
        ([gguf_text("k") + struct.pack("<LQ", 8, 1 << 63)], [], "cut off"),
        ([], [gguf_info("x", [31], 2, 0)], "not whole blocks of GGUF_Q4_0"),
        ([], [gguf_info("x", [1] * 65, 0, 0)], "65 dimensions"),
    ],
)
def test_what_is_wrong_is_named(entries: list[bytes], infos: list[bytes], reason: str):
    assert reason in reason_of(gguf_file(entries, infos, bytes(64)))


@pytest.mark.parametrize("length", [1, 7, 16_300, 1 << 16])
def test_a_vocabulary_of_many_reads(length: int):
    """A string may end, and its length be cut in two, where what was read ends."""
    strings = b"".join(
        gguf_text("t" * (length + number % 9)) for number in range(400_000 // length)
    )
    count = 400_000 // length
    entry = gguf_text("k") + struct.pack("<LLQ", 9, 8, count) + strings
    after = gguf_text("z") + struct.pack("<LL", 4, 7)
    infos = [gguf_info("x", [1], 0, 0)]
    (span,) = layout_of(gguf_file([entry, after], infos, bytes(4))).spans
    assert (span.name, span.length) == ("x", 4)
    longer = gguf_text("k") + struct.pack("<LLQ", 9, 8, count + 9) + strings
    assert "cut off" in reason_of(gguf_file([longer], []))
