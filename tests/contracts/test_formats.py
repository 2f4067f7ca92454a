"""What every format must do. A new format joins by a line in ``SAMPLES``."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from git_theta.core import registry
from git_theta.core.layout import Layout, TensorSpan
from git_theta.core.registry import Format
from git_theta.core.system import MemorySource
from git_theta.errors import ChangedError, FormatError
from git_theta.formats import check_layout, scan
from tests.support import checkpoints

# Tensors of 4 MB in all: what a scan reads of them must not grow with them.
ARRAYS = checkpoints.tensors(rows=8192, layers=4)
SAMPLES: dict[str, Callable[[], bytes]] = {
    "safetensors": lambda: checkpoints.safetensors(ARRAYS, format="pt"),
    "torch": lambda: checkpoints.torch_zip(ARRAYS),
}
# The end of a zip file is found in its last 64 KiB and 22 bytes.
MOST_READ = 100_000


@cache
def sample(name: str) -> bytes:
    return SAMPLES[name]()


class Counting:
    """A source that counts what is read, and refuses reads outside of itself."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)
        self.size = len(data)
        self.read_bytes = 0

    def read(self, offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= self.size
        self.read_bytes += length
        self._file.seek(offset)
        return self._file.read(length)


class Shrunk(MemorySource):
    """A file that was truncated after its size was read."""

    def read(self, offset: int, length: int) -> bytes:
        raise ChangedError("the file became shorter while it was read")


@pytest.fixture(params=registry.names("formats"))
def format_(request: pytest.FixtureRequest) -> Format:
    return registry.format_named(request.param)


def test_every_format_has_a_sample():
    assert list(SAMPLES) == registry.names("formats")


def test_it_is_called_what_it_is_registered_as(format_: Format):
    assert registry.format_named(format_.name) is format_
    assert format_.scan(MemorySource(sample(format_.name))).format == format_.name


def test_its_suffixes_are_lower_case_and_its_own(format_: Format):
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in format_.suffixes)
    others = [registry.format_named(name) for name in SAMPLES if name != format_.name]
    assert not set(format_.suffixes) & {suffix for other in others for suffix in other.suffixes}


def test_it_finds_every_tensor(format_: Format):
    data = sample(format_.name)
    layout = format_.scan(MemorySource(data))
    check_layout(layout, len(data))
    found = {
        span.name: np.frombuffer(data, np.float32, span.length // 4, span.start).reshape(span.shape)
        for span in layout.spans
    }
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
    assert {span.dtype for span in layout.spans} == {"F32"}


def test_it_keeps_nothing_between_scans(format_: Format):
    source = MemorySource(sample(format_.name))
    first = format_.scan(source)
    with pytest.raises(FormatError):
        format_.scan(MemorySource(b"something else"))
    assert format_.scan(source) == first


def test_it_reads_no_tensor_data(format_: Format):
    source = Counting(sample(format_.name))
    assert format_.matches(source)
    assert format_.scan(source).spans
    assert source.read_bytes < MOST_READ


def test_it_claims_its_own_files_only(format_: Format):
    for name in SAMPLES:
        assert format_.matches(MemorySource(sample(name))) is (name == format_.name)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"{", bytes(100), b"\xff" * 100, b"PK\x03\x04", b"\x80\x02", b"GGUF" + bytes(20)],
)
def test_it_refuses_what_is_something_else(format_: Format, data: bytes):
    assert format_.matches(Counting(data)) is False
    with pytest.raises(FormatError):
        format_.scan(Counting(data))


def test_a_file_that_is_cut_off_is_opaque(format_: Format):
    data = sample(format_.name)
    for length in (1, 9, 40, 1000, len(data) // 2, len(data) - 1):
        source = Counting(data[:length])
        assert format_.matches(source) in (True, False)
        layout, warning = scan(source, f"x{format_.suffixes[0]}")
        assert layout == Layout("opaque")
        assert f"not a well-formed {format_.name} file" in (warning or "")


def test_a_file_that_shrinks_while_it_is_read_is_reported(format_: Format):
    with pytest.raises(ChangedError):
        scan(Shrunk(sample(format_.name)), "x")


def test_every_format_gives_the_same_tensors():
    described = []
    for name in SAMPLES:
        data = sample(name)
        layout = registry.format_named(name).scan(MemorySource(data))
        described.append(
            {
                span.name: (span.dtype, span.shape, data[span.start : span.start + span.length])
                for span in layout.spans
            }
        )
    assert all(other == described[0] for other in described)


# --- what a merge asks ----------------------------------------------------------------------------


def other_values(name: str) -> bytes:
    """The sample with the bytes of all tensors changed, as a file with stale checksums."""
    data = bytearray(sample(name))
    for span in registry.format_named(name).scan(MemorySource(bytes(data))).spans:
        data[span.start : span.start + span.length] = bytes(span.length)
    return bytes(data)


def test_extras_do_not_depend_on_the_tensors_bytes(format_: Format):
    data = sample(format_.name)
    extras = format_.extras(MemorySource(data))
    assert format_.extras(MemorySource(other_values(format_.name))) == extras
    assert len(extras) < len(data) // 10


def test_checksums_are_those_of_the_tensors(format_: Format):
    data = sample(format_.name)
    found = format_.checksums(MemorySource(data))
    assert list(found) == list(format_.checksums(MemorySource(other_values(format_.name))))
    for checksum in found:
        content = data[checksum.start : checksum.start + checksum.length]
        expected = zlib.crc32(content).to_bytes(4, "little")
        assert checksum.places
        assert {data[place : place + 4] for place in checksum.places} == {expected}


# Their files hold more than tensors and names, which only the framework can write.
WRITTEN_BY_FRAMEWORKS = {"torch"}


def test_a_file_is_rebuilt_with_other_tensors_or_not_at_all(format_: Format):
    data = sample(format_.name)
    first, *rest = format_.scan(MemorySource(data)).spans
    wanted = [*rest, TensorSpan("new", "F16", (3, 2), 0, 12), replace(first, name="renamed")]
    if format_.name in WRITTEN_BY_FRAMEWORKS:
        with pytest.raises(FormatError) as caught:
            format_.rebuild(MemorySource(data), wanted)
        assert caught.value.hint
        return
    rebuilt = format_.rebuild(MemorySource(data), wanted)
    spans = rebuilt.layout.spans
    assert len(rebuilt.pieces) == len(spans) + 1
    fills = [bytes([number]) * span.length for number, span in enumerate(spans)]
    parts = [part for pair in zip(rebuilt.pieces, fills, strict=False) for part in pair]
    made = b"".join(parts) + rebuilt.pieces[-1]
    assert format_.scan(MemorySource(made)) == rebuilt.layout
    assert format_.extras(MemorySource(made)) == format_.extras(MemorySource(data))
    for span, fill in zip(spans, fills, strict=True):
        assert made[span.start : span.start + span.length] == fill
    expected = {span.name: (span.dtype, span.shape, span.length) for span in wanted}
    assert {span.name: (span.dtype, span.shape, span.length) for span in spans} == expected
