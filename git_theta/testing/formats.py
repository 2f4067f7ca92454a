"""The contract of formats: find the tensors, read none of them, refuse what is malformed."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from git_theta.core.layout import TensorSpan
from git_theta.core.registry import Format
from git_theta.errors import ChangedError, FormatError
from git_theta.formats.checks import check_layout

# Of a sample of some MB; the end of a zip file is looked for in its last 64 KiB and 22 bytes.
_MOST_READ = 100_000
_OTHERS = (b"\0", b"{", bytes(100), b"\xff" * 100, b"PK\x03\x04", b"\x80\x02", b"GGUF" + bytes(20))


class MemorySource:
    """Bytes in memory as a source; counts what is read, refuses reads outside of itself."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)
        self.size = len(data)
        self.read_bytes = 0

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes at ``offset``."""
        assert 0 <= offset <= offset + length <= self.size, "a read outside of the file"
        self.read_bytes += length
        self._file.seek(offset)
        return self._file.read(length)


class ShrunkSource(MemorySource):
    """A file that was truncated after its size was read."""

    def read(self, offset: int, length: int) -> bytes:
        """Raise what a file does that became shorter."""
        raise ChangedError("the file became shorter while it was read")


class FormatSuite:
    """Conformance of one format; a subclass has fixtures ``plugin``, ``arrays`` and ``sample``.

    ``can_rebuild`` says whether files can be made from tensors alone, as merging LoRA adapters
    and shards does.
    """

    can_rebuild = True

    @pytest.fixture
    def plugin(self) -> Format:
        """Return the format to test."""
        raise NotImplementedError("give your subclass a fixture called plugin")

    @pytest.fixture
    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Return the float32 tensors of the sample by name: over 1 MB in all."""
        raise NotImplementedError("give your subclass a fixture called arrays")

    @pytest.fixture
    def sample(self) -> bytes:
        """Return a file with these tensors."""
        raise NotImplementedError("give your subclass a fixture called sample")

    def test_its_suffixes_are_lower_case(self, plugin: Format) -> None:
        """A suffix is matched with the end of a lower-cased name."""
        assert plugin.name
        assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in plugin.suffixes)

    def test_it_finds_every_tensor(
        self, plugin: Format, sample: bytes, arrays: Mapping[str, NDArray[Any]]
    ) -> None:
        """Spans are where the bytes of the tensors are."""
        layout = plugin.scan(MemorySource(sample))
        check_layout(layout, len(sample))
        assert layout.format == plugin.name
        assert {span.name for span in layout.spans} == set(arrays)
        assert {span.dtype for span in layout.spans} == {"F32"}
        for span in layout.spans:
            found = np.frombuffer(sample, np.float32, span.length // 4, span.start)
            np.testing.assert_array_equal(found.reshape(span.shape), arrays[span.name])

    def test_it_keeps_nothing_between_scans(self, plugin: Format, sample: bytes) -> None:
        """A failure does not change what comes next."""
        first = plugin.scan(MemorySource(sample))
        with pytest.raises(FormatError):
            plugin.scan(MemorySource(b"something else"))
        assert plugin.scan(MemorySource(sample)) == first

    def test_it_reads_no_tensor_data(self, plugin: Format, sample: bytes) -> None:
        """A checkpoint may be larger than memory."""
        source = MemorySource(sample)
        assert plugin.matches(source)
        assert plugin.scan(source).spans
        assert source.read_bytes < min(_MOST_READ, len(sample) // 2)

    @pytest.mark.parametrize("data", [b"", *_OTHERS], ids=repr)
    def test_it_refuses_what_is_something_else(self, plugin: Format, data: bytes) -> None:
        """``matches`` answers, ``scan`` raises ``FormatError``, whatever the bytes are."""
        assert plugin.matches(MemorySource(data)) is False
        with pytest.raises(FormatError):
            plugin.scan(MemorySource(data))

    def test_it_refuses_a_file_that_is_cut_off(self, plugin: Format, sample: bytes) -> None:
        """At any place: such files are stored whole."""
        for length in (1, 9, 40, 1000, len(sample) // 2, len(sample) - 1):
            source = MemorySource(sample[:length])
            assert plugin.matches(source) in (True, False)
            with pytest.raises(FormatError):
                check_layout(plugin.scan(source), source.size)

    def test_a_file_that_shrinks_while_it_is_read_is_reported(
        self, plugin: Format, sample: bytes
    ) -> None:
        """``ChangedError`` passes through."""
        with pytest.raises(ChangedError):
            plugin.scan(ShrunkSource(sample))

    def test_extras_do_not_depend_on_the_bytes_of_tensors(
        self, plugin: Format, sample: bytes
    ) -> None:
        """A merge asks by them whether a side changed anything else."""
        extras = plugin.extras(MemorySource(sample))
        assert plugin.extras(MemorySource(_other_values(plugin, sample))) == extras
        assert len(extras) < len(sample) // 10

    def test_checksums_are_those_of_the_tensors(self, plugin: Format, sample: bytes) -> None:
        """A merge writes new ones at their places."""
        found = plugin.checksums(MemorySource(sample))
        assert list(found) == list(plugin.checksums(MemorySource(_other_values(plugin, sample))))
        for checksum in found:
            content = sample[checksum.start : checksum.start + checksum.length]
            expected = zlib.crc32(content).to_bytes(4, "little")
            assert checksum.places
            assert {sample[place : place + 4] for place in checksum.places} == {expected}

    def test_a_file_is_rebuilt_with_other_tensors_or_not_at_all(
        self, plugin: Format, sample: bytes
    ) -> None:
        """The new file has these tensors, and says all else that the old one did."""
        first, *rest = plugin.scan(MemorySource(sample)).spans
        wanted = [*rest, TensorSpan("new", "F16", (3, 2), 0, 12), replace(first, name="renamed")]
        if not self.can_rebuild:
            with pytest.raises(FormatError) as caught:
                plugin.rebuild(MemorySource(sample), wanted)
            assert caught.value.hint
            return
        rebuilt = plugin.rebuild(MemorySource(sample), wanted)
        spans = rebuilt.layout.spans
        fills = [bytes([number]) * span.length for number, span in enumerate(spans)]
        assert len(rebuilt.pieces) == len(spans) + 1
        parts = [part for pair in zip(rebuilt.pieces, fills, strict=False) for part in pair]
        made = b"".join(parts) + rebuilt.pieces[-1]
        assert plugin.scan(MemorySource(made)) == rebuilt.layout
        assert plugin.extras(MemorySource(made)) == plugin.extras(MemorySource(sample))
        assert list(rebuilt.checksums) == list(plugin.checksums(MemorySource(made)))
        for span, fill in zip(spans, fills, strict=True):
            assert made[span.start : span.start + span.length] == fill
        assert _kinds(spans) == _kinds(wanted)


def _kinds(spans: Any) -> dict[str, object]:
    return {span.name: (span.dtype, span.shape, span.length) for span in spans}


def _other_values(plugin: Format, sample: bytes) -> bytes:
    """Return the sample with zeros for tensors, and so with stale checksums."""
    data = bytearray(sample)
    for span in plugin.scan(MemorySource(sample)).spans:
        data[span.start : span.start + span.length] = bytes(span.length)
    return bytes(data)
