"""Files of arrays made anew: those that ``numpy.savez`` writes, byte for byte."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from git_theta.core.layout import Rebuilt, TensorSpan
from git_theta.errors import FormatError
from git_theta.formats.numpy_arrays import FORMAT
from git_theta.testing.formats import MemorySource
from tests.support import checkpoints
from tests.support.formats import Record, zip_file

MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4)
SOURCE = MemorySource(checkpoints.npz({"old": MATRIX}))
SPAN = TensorSpan("w", "F32", (3, 4), 0, 48)
LATER = TensorSpan("x", "F32", (1 << 20,), 0, 4 << 20)


class Virtual(io.RawIOBase):
    """A rebuilt file whose arrays are zeros that take no memory."""

    def __init__(self, rebuilt: Rebuilt) -> None:
        self._parts, self.size, self._at = [], 0, 0
        for number, piece in enumerate(rebuilt.pieces):
            self._parts.append((self.size, piece))
            self.size += len(piece)
            self.size += sum(span.length for span in rebuilt.layout.spans[number : number + 1])

    def read(self, offset: int = -1, length: int | None = None) -> bytes:
        """Read as a source does, with both arguments; as a file does, with one."""
        if length is None:
            length = self.size - self._at if offset is None or offset < 0 else offset
            offset, self._at = self._at, min(self._at + length, self.size)
        data = bytearray(max(0, min(length, self.size - offset)))
        for start, piece in self._parts:
            first, last = max(start, offset), min(start + len(piece), offset + len(data))
            if first < last:
                data[first - offset : last - offset] = piece[first - start : last - start]
        return bytes(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + {0: 0, 1: self._at, 2: self.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True


def rewritten(data: bytes) -> bytes:
    """Return a file of the arrays of ``data``, made from their spans and bytes."""
    spans = FORMAT.scan(MemorySource(data)).spans
    rebuilt = FORMAT.rebuild(SOURCE, [replace(span, start=7) for span in spans])
    contents = [data[span.start : span.start + span.length] for span in spans]
    made = bytearray(rebuilt.pieces[0])
    for content, piece in zip(contents, rebuilt.pieces[1:], strict=True):
        made += content + piece
    for each in rebuilt.checksums:
        content = bytes(made[each.start : each.start + each.length])
        content = zlib.decompress(content, -15) if each.sizes else content
        for place in each.places:
            made[place : place + 4] = zlib.crc32(content).to_bytes(4, "little")
        for place in each.sizes:
            made[place : place + 4] = len(content).to_bytes(4, "little")
    return bytes(made)


@checkpoints.AS_NUMPY_WRITES
def test_it_is_what_numpy_writes() -> None:
    numbers = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?", "c8", "c16"]
    numbers += [">f4", "M8[ns]", "m8[s]"]
    arrays = {f"of/{name}": np.arange(6).astype(name).reshape(2, 3) for name in numbers}
    arrays |= {
        "bf16": MATRIX.astype(ml_dtypes.bfloat16),
        "é.text": np.array(["a", "bcd"]),
        "bytes": np.array([b"a", b"bcd"]),
        "turned": MATRIX.T,
        "scalar": np.array(3.5),
        "empty": np.zeros((0, 4)),
        "of a long shape": np.zeros((1,) * 31 + (2,), np.float32),
    }
    data = checkpoints.npz(arrays)
    assert len(FORMAT.scan(MemorySource(data)).spans) == len(arrays)
    assert rewritten(data) == data


def test_one_array_with_a_name_that_is_no_text() -> None:
    data = zip_file([Record("w.npy", checkpoints.npy(MATRIX))]).replace(b"w.npy", b"\xff.npy")
    with zipfile.ZipFile(io.BytesIO(rewritten(data))) as archive:
        assert archive.testzip() is None
        assert [info.orig_filename for info in archive.infolist()] == ["\xa0.npy"]


@pytest.mark.parametrize(
    "wanted",
    [
        [replace(SPAN, name=str(n), shape=(1 << 29,), length=2 << 30) for n in range(4)],
        [replace(SPAN, shape=(3 << 29,), length=6 << 30), LATER],
    ],
    ids=["offsets", "sizes"],
)
def test_arrays_of_gigabytes(wanted: list[TensorSpan]) -> None:
    rebuilt = FORMAT.rebuild(SOURCE, wanted)
    file = Virtual(rebuilt)
    assert FORMAT.scan(file) == rebuilt.layout
    assert list(FORMAT.checksums(file)) == list(rebuilt.checksums)
    with zipfile.ZipFile(file) as archive:
        for span, info in zip(rebuilt.layout.spans, archive.infolist(), strict=True):
            assert info.filename == f"{span.name}.npy"
            with archive.open(info) as member:
                assert np.lib.format.read_magic(member) == (1, 0)
                shape = np.lib.format.read_array_header_1_0(member)[0]
            assert shape == span.shape


def test_more_arrays_than_a_zip_file_of_old_has() -> None:
    wanted = [TensorSpan(str(n), "U8", (0,), 0, 0) for n in range(70_000)]
    rebuilt = FORMAT.rebuild(SOURCE, wanted)
    made = b"".join(rebuilt.pieces)
    assert FORMAT.scan(MemorySource(made)) == rebuilt.layout
    with np.load(io.BytesIO(made), allow_pickle=False) as arrays:
        assert len(arrays) == 70_000
        assert arrays["69999"].shape == (0,)


@pytest.mark.parametrize(
    ("span", "reason"),
    [
        (replace(SPAN, dtype="BF16", length=24), "'w' of 'BF16' cannot be written"),
        (replace(SPAN, dtype="|O", length=96), "cannot be written"),
        (replace(SPAN, dtype="<f4', 'x': '"), "cannot be written"),
        (replace(SPAN, offset=2), "cannot be written"),
        (replace(SPAN, strides=(8, 1)), "cannot be written"),
        (replace(SPAN, length=96), "cannot be written"),
        (replace(SPAN, name="\ud800"), "cannot be the name"),
        (replace(SPAN, name="w" * (1 << 16)), "is too long for a zip file"),
    ],
)
def test_arrays_that_no_file_has(span: TensorSpan, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        FORMAT.rebuild(SOURCE, [span])


def test_files_that_cannot_be_made() -> None:
    odd = MemorySource(checkpoints.npz({"w": np.array([{}]), "x": MATRIX}))
    with pytest.raises(FormatError, match=r"'w\.npy' is a plain array on one side"):
        FORMAT.rebuild(odd, [SPAN])
    with pytest.raises(FormatError, match="no array is left"):
        FORMAT.rebuild(SOURCE, [])
    packed = compressed(w=MATRIX, big=MATRIX.astype(">f4"))
    with pytest.raises(FormatError, match=r"'big\.npy' is compressed") as caught:
        FORMAT.rebuild(MemorySource(packed), [SPAN])
    assert caught.value.hint == "save all sides with numpy.savez"


def compressed(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


@checkpoints.AS_NUMPY_WRITES
def test_compressed_arrays_are_what_numpy_writes() -> None:
    data = compressed(**{"of/w": MATRIX, "é": np.zeros((900, 90)), "n": np.int64(3), "T": MATRIX.T})
    assert len(FORMAT.scan(MemorySource(data)).spans) == 4
    assert rewritten(data) == data


def test_plain_and_compressed_arrays_in_one_file() -> None:
    data = compressed(w=MATRIX + 1)
    (span,) = FORMAT.scan(MemorySource(data)).spans
    rebuilt = FORMAT.rebuild(SOURCE, [replace(SPAN, name="plain"), span])
    plain, packed = rebuilt.checksums
    assert (plain.sizes, len(packed.sizes)) == ((), 2)
    assert [s.dtype for s in rebuilt.layout.spans] == ["F32", "DEFLATED_F32"]
    # Where a merge looks at ours, its arrays are zeros.
    hollow = bytearray(data)
    hollow[span.start : span.start + span.length] = bytes(span.length)
    assert (
        FORMAT.rebuild(MemorySource(bytes(hollow)), [span]).pieces
        == FORMAT.rebuild(MemorySource(data), [span]).pieces
    )
    assert FORMAT.extras(MemorySource(bytes(hollow))) == FORMAT.extras(MemorySource(data)) == b""


def test_records_that_overlap_are_not_written_one_after_another() -> None:
    sizes = {"a": 3100, "b": 2050, "c": 1000}
    records = [Record(name, bytes(1000), size=size) for name, size in sizes.items()]
    data = MemorySource(zip_file([Record("m.npy", checkpoints.npy(MATRIX)), *records]))
    with pytest.raises(FormatError, match="its records overlap"):
        FORMAT.rebuild(data, [SPAN])
