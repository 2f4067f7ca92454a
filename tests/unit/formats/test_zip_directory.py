from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta.core.files import FileSource
from git_theta.errors import FormatError
from git_theta.formats import zip_directory
from git_theta.formats.zip_directory import first_name, place, read_directory
from git_theta.testing.formats import MemorySource
from tests.support.formats import MAX32, Record, zip_file

TWO = [Record("r/a", b"first"), Record("r/b", b"second")]


def contents(data: bytes) -> dict[bytes, bytes]:
    source = MemorySource(data)
    return {
        name: source.read(place(source, record), record.length)
        for name, record in read_directory(source).items()
    }


def refusal(data: bytes) -> str:
    with pytest.raises(FormatError) as caught:
        contents(data)
    return caught.value.message


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"zip64": True},
        {"comment": b"a comment"},
        {"comment": b"PK\x05\x06" + b"\xff" * 30},
        {"after": b"bytes after the end"},
    ],
)
def test_records_by_name(options):
    assert contents(zip_file(TWO, **options)) == {b"r/a": b"first", b"r/b": b"second"}


def test_what_the_standard_library_writes():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("r/stored", b"stored")
        with archive.open(zipfile.ZipInfo("r/zip64"), "w", force_zip64=True) as file:
            file.write(b"zip64")
        archive.writestr("r/deflated", b"x" * 99, zipfile.ZIP_DEFLATED)
    records = read_directory(MemorySource(buffer.getvalue()))
    assert [record.plain for record in records.values()] == [True, True, False]
    found = contents(buffer.getvalue())
    assert (found[b"r/stored"], found[b"r/zip64"]) == (b"stored", b"zip64")


def test_encrypted_records_are_not_plain():
    (record,) = read_directory(MemorySource(zip_file([Record("r/a", b"x", flags=1)]))).values()
    assert not record.plain


def test_records_beyond_four_gigabytes(tmp_path: Path):
    far = 5 << 30
    directory_start = far + 30 + 3 + 3 + 9
    extra = struct.pack("<2H3Q", 1, 24, 9, 9, far)
    small = zip_file(
        [Record("r/a", b"far", zip64=True, directory_extra=extra)], zip64=True, start=0, at=0
    )
    tail = small[small.index(b"PK\x01\x02") :]
    tail = tail.replace(
        struct.pack("<2Q", len(extra) + 49, 0), struct.pack("<2Q", len(extra) + 49, directory_start)
    )
    end64 = directory_start + len(extra) + 49
    tail = tail.replace(struct.pack("<LQL", 0, 0, 1), struct.pack("<LQL", 0, end64, 1))
    path = tmp_path / "far.zip"
    with path.open("wb") as file:
        file.seek(far)
        file.write(struct.pack("<4s5H3L2H", b"PK\x03\x04", 45, 0, 0, 0, 0, 0, MAX32, MAX32, 3, 3))
        file.write(b"r/a" + b"pad" + b"nine byte" + tail)
    with FileSource(path) as source:
        (record,) = read_directory(source).values()
        start = place(source, record)
        assert (start, source.read(start, record.length)) == (far + 36, b"nine byte")


def test_many_records():
    records = [Record(f"r/{number}", b"x") for number in range(66_000)]
    assert len(read_directory(MemorySource(zip_file(records, zip64=True)))) == 66_000


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"PK\x03\x04", "is missing", id="no end"),
        pytest.param(zip_file(TWO)[:-1], "is missing", id="end cut off"),
        pytest.param(zip_file(TWO, comment=b"long")[:-1], "is missing", id="comment cut off"),
        pytest.param(zip_file(TWO, start=1 << 30), "reaches beyond the end", id="start"),
        pytest.param(zip_file(TWO, length=1 << 30), "reaches beyond the end", id="length"),
        pytest.param(zip_file(TWO, start=10), "malformed", id="elsewhere"),
        pytest.param(zip_file(TWO, length=92), "is cut off", id="shorter than its entries"),
        pytest.param(zip_file(TWO, start=MAX32), "reaches beyond the end", id="no locator"),
        pytest.param(zip_file([], start=MAX32), "reaches beyond the end", id="nothing before"),
        pytest.param(zip_file(TWO, count=3), "cannot hold 3 records", id="count"),
        pytest.param(zip_file(TWO, zip64=True, count=1 << 60), "cannot hold", id="count64"),
        pytest.param(zip_file(TWO, zip64=True, start=1 << 60), "beyond the end", id="start64"),
        pytest.param(zip_file(TWO, zip64=True, at=1 << 60), "zip64", id="locator"),
        pytest.param(zip_file(TWO, zip64=True, at=3), "is not where the locator", id="locator 2"),
        pytest.param(zip_file(TWO[:1] * 2), "'r/a' appears twice", id="twice"),
        pytest.param(
            zip_file([Record("r/a", b"x", size=1 << 20)]), "ends beyond the end", id="size"
        ),
        pytest.param(zip_file([Record("r/a", b"x", header=1)]), "is not where", id="header"),
        pytest.param(
            zip_file([Record("r/a", b"x", header=1 << 20)]), "lies beyond the end", id="far header"
        ),
        pytest.param(
            zip_file([Record("r/a", b"x", local_name="r/b")]), "is not where", id="other name"
        ),
        pytest.param(
            zip_file([Record("r/a", b"x", local_name="r/ab")]), "is not where", id="longer name"
        ),
        pytest.param(
            zip_file(
                [Record("r/a", b"", zip64=True, directory_extra=b"\x01\x00\x08\x00" + bytes(8))]
            ),
            "a zip64 field of its directory is cut off",
            id="short zip64 field",
        ),
        pytest.param(
            zip_file([Record("r/a", b"", zip64=True, directory_extra=b"")]),
            "beyond the end",
            id="no zip64 field",
        ),
        pytest.param(
            zip_file([Record("r/a", b"", zip64=True, directory_extra=b"\x01\x00")]),
            "beyond the end",
            id="half an extra field",
        ),
    ],
)
def test_what_is_wrong_is_named(data: bytes, reason: str):
    assert reason in refusal(data)


@pytest.mark.parametrize("position", [10, 12, 28])
def test_lengths_inside_an_entry_are_checked(position: int):
    data = bytearray(zip_file(TWO))
    data[
        data.rindex(b"PK\x01\x02") + position + 18 : data.rindex(b"PK\x01\x02") + position + 20
    ] = b"\xff\xff"
    refusal(bytes(data))


def test_the_directory_may_not_be_large(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(zip_directory, "_MAX_DIRECTORY", 50)
    assert "too large" in refusal(zip_file(TWO))


def test_a_field_of_another_kind_is_passed_over():
    extra = b"UT\x04\x00time" + struct.pack("<2H3Q", 1, 24, 1, 1, 0)
    data = zip_file([Record("r/a", b"x", zip64=True, directory_extra=extra)])
    assert contents(data) == {b"r/a": b"x"}


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (zip_file(TWO), b"r/a"),
        (zip_file(TWO)[:33], b"r/a"),
        (zip_file(TWO)[:32], None),
        (b"", None),
        (bytes(99), None),
    ],
)
def test_first_name(data: bytes, name: bytes | None):
    assert first_name(MemorySource(data)) == name


@settings(max_examples=100)
@given(
    st.dictionaries(st.text(max_size=5), st.binary(max_size=9), max_size=5),
    st.booleans(),
    st.booleans(),
    st.binary(max_size=40),
)
def test_any_zip_file_is_read(records, zip64, records64, comment):
    data = zip_file(
        [Record(name, content, zip64=records64) for name, content in records.items()],
        zip64=zip64,
        comment=comment.replace(b"PK\x05\x06", b""),
    )
    assert contents(data) == {name.encode(): content for name, content in records.items()}
