"""The contract of encodings: any bytes survive, and a stranger's frame does no harm."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from git_theta.codec import Frame, decode_frame, encode_frame
from git_theta.core.arrays import Bytes
from git_theta.core.dtypes import DTYPES, DType, dtype
from git_theta.core.layout import Encoded, Geometry, Part
from git_theta.core.registry import Encoding
from git_theta.errors import CorruptObjectError

TYPES = [*DTYPES.values(), dtype("heard of tomorrow")]
_FEW = [dtype(name) for name in ("F32", "BF16", "U8")]
# NaNs with payloads, infinities, zeros of both signs, subnormals, as 32, 16 and 8 bit floats.
_SPECIAL = np.array(
    [
        [0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00001, 0x7F800001],
        [0x00000001, 0x80000001, 0x7F7FFFFF, 0x00008000, 0x7C00FC01, 0x80007FFF, 0xFF7F0080],
    ],
    "<u4",
).tobytes()

Case = tuple[Bytes, Bytes, tuple[int, ...]]
"""Raw bytes, a base, and the shape of the tensor that the bytes are."""


class EncodingSuite:
    """Conformance of one encoding; a subclass has a fixture ``encoding`` that returns it."""

    @pytest.fixture
    def encoding(self) -> Encoding:
        """Return the encoding to test."""
        raise NotImplementedError("give your subclass a fixture called encoding")

    def test_it_has_a_name_and_a_number(self, encoding: Encoding) -> None:
        """A number fits the byte that a frame has for it."""
        assert encoding.name
        assert 0 <= encoding.number <= 255

    @pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
    def test_every_dtype_survives(self, encoding: Encoding, kind: DType) -> None:
        """Weights, small and large changes of them, noise, NaNs, 0-d."""
        for raw, base, shape in cases(kind):
            round_trip(encoding, raw, base_for(encoding, base), Geometry(kind, shape))

    def test_any_bytes_survive(self, encoding: Encoding) -> None:
        """Short chunks of any length, with one byte changed."""
        generator = np.random.default_rng(0)
        for size in range(1, 131):
            base = generator.integers(0, 256, size, np.uint8)
            raw = base.copy()
            raw[generator.integers(size)] ^= generator.integers(256, dtype=np.uint8)
            kind = TYPES[size % len(TYPES)]
            geometry = Geometry(kind, (size * 8 // kind.bits,))
            for new in (base, raw):
                round_trip(encoding, flat(new), base_for(encoding, flat(base)), geometry)

    @pytest.mark.parametrize("name", ["F32", "BF16", "I8", "C64"])
    def test_a_base_of_another_length_is_declined_or_exact(
        self, encoding: Encoding, name: str
    ) -> None:
        """Tensors grow and shrink between versions."""
        raw = flat(weights(dtype(name)))
        geometry = Geometry(dtype(name), (raw.size // (dtype(name).bits // 8),))
        for base in (raw[:0], raw[:1], raw[: raw.size // 2], raw[:-8], flat(bytes(raw) + bytes(9))):
            round_trip(encoding, raw, base_for(encoding, base), geometry)

    @pytest.mark.parametrize("name", ["F64", "F32", "F16", "BF16", "U8"])
    def test_a_slice_of_a_larger_tensor_survives(self, encoding: Encoding, name: str) -> None:
        """A chunk may begin in the middle of a tensor."""
        old, new = (weights(dtype(name), 600, 200, seed) for seed in (0, 1))
        new[np.arange(600) % 50 > 0] = old[np.arange(600) % 50 > 0]
        geometry = Geometry(dtype(name), old.shape, first=100 * 200)
        round_trip(encoding, flat(new[100:]), base_for(encoding, flat(old[100:])), geometry)

    def test_no_base_is_declined_where_one_is_needed(self, encoding: Encoding) -> None:
        """Without a base: decline to encode, refuse to decode."""
        if not encoding.needs_base:
            pytest.skip("it needs none")
        geometry = Geometry(dtype("F32"), (48, 40))
        assert encoding.encode(flat(weights(dtype("F32"))), None, geometry) is None
        with pytest.raises(CorruptObjectError):
            encoding.decode(Encoded(b"", ()), None, geometry, 48 * 40 * 4)

    def test_the_same_input_gives_the_same_result_in_any_thread(self, encoding: Encoding) -> None:
        """Chunks are encoded side by side, and nothing may depend on it."""

        def run(case: tuple[DType, Case]) -> object:
            kind, (raw, base, shape) = case
            return frozen(encoding.encode(raw, base_for(encoding, base), Geometry(kind, shape)))

        given = [(kind, case) for kind in _FEW for case in cases(kind)]
        expected = [run(case) for case in given]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(run, given * 3)) == expected * 3

    @pytest.mark.parametrize("kind", _FEW, ids=lambda kind: kind.name)
    def test_hostile_parts_are_refused_or_give_other_bytes(
        self, encoding: Encoding, kind: DType
    ) -> None:
        """Whether the bytes are right, the content hash says; no other harm may come of them."""
        for encoded, raw, held in self._encoded(encoding, kind):
            for hostile in mutations(encoded):
                with suppress(CorruptObjectError):
                    decoded = encoding.decode(hostile, held, Geometry(kind), raw.size)
                    assert (decoded.dtype, decoded.shape) == (raw.dtype, raw.shape)

    @pytest.mark.parametrize("kind", _FEW, ids=lambda kind: kind.name)
    def test_parts_that_are_missing_or_cut_are_refused(
        self, encoding: Encoding, kind: DType
    ) -> None:
        """A part too few is an error, another length an error or exactly that length."""
        geometry = Geometry(kind)
        for encoded, raw, held in self._encoded(encoding, kind):
            for parts in ((), encoded.parts[:-1]) if encoded.parts else ():
                with pytest.raises(CorruptObjectError):
                    encoding.decode(replace(encoded, parts=parts), held, geometry, raw.size)
            for length in (1, max(1, raw.size - 1), raw.size + 1, 2 * raw.size):
                with suppress(CorruptObjectError):
                    assert encoding.decode(encoded, held, geometry, length).size == length

    def _encoded(
        self, encoding: Encoding, kind: DType
    ) -> Iterator[tuple[Encoded, Bytes, Bytes | None]]:
        for raw, base, shape in cases(kind):
            held = base_for(encoding, base)
            encoded = encoding.encode(raw, held, Geometry(kind, shape))
            if encoded is not None:
                yield encoded, raw, held


def round_trip(
    encoding: Encoding, raw: Bytes, base: Bytes | None, geometry: Geometry
) -> Encoded | None:
    """Encode, carry through a frame, decode with what a frame tells; assert that it is exact."""
    encoded = encoding.encode(raw, base, geometry)
    if encoded is None:
        return None
    frame = Frame(encoding.number, geometry.dtype.name, raw.size, "0" * 64, None, encoded)
    carried = decode_frame(b"".join(encode_frame(frame))).encoded
    assert carried == encoded, "parts of words of 1, 2, 4 or 8 bytes, of bounded size"
    decoded = encoding.decode(carried, base, Geometry(geometry.dtype), raw.size)
    assert decoded.dtype == np.uint8
    assert decoded.shape == raw.shape
    np.testing.assert_array_equal(decoded, raw)
    return encoded


def flat(data: bytes | NDArray[Any]) -> Bytes:
    """Return bytes as chunks are: flat and read-only, so that writing to an input fails."""
    return np.frombuffer(bytes(data), np.uint8)


def weights(kind: DType, rows: int = 48, columns: int = 40, seed: int = 0) -> NDArray[Any]:
    """Return values that look like weights, as words of the dtype (``rows`` times ``columns``)."""
    values = np.random.default_rng(seed).standard_normal((rows, columns)) * 0.05
    if kind.kind == "float" and kind.name != "BF16" and kind.word > 1:
        return values.astype(f"<f{kind.word}")
    words: NDArray[Any] = values.astype("<f4").view("<u4")
    words = words >> np.uint32(max(0, 32 - 8 * kind.word))
    return words.astype(f"<u{kind.word}")


def cases(kind: DType) -> list[Case]:
    """Return pairs of versions of a chunk, from equal to unrelated."""
    old, other = weights(kind), weights(kind, seed=1)
    few = old.copy()
    few[5, 7:9] = other[5, 7:9]
    more = np.where(np.random.default_rng(2).random(old.shape) < 0.4, other, old)
    column = old.copy()
    column[:, 3] = other[:, 3]
    structured = (old * other[0, 0] if old.dtype.kind == "f" else old) + other[:1]
    results = [old, few, more, column, other, structured.astype(old.dtype)]
    shape = (48, 40 * 8 * kind.word // kind.bits)
    special = flat(_SPECIAL * 16)
    return [
        *((flat(new), flat(old), shape) for new in results),
        (_noise(3840), _noise(3840, 1), (3840 * 8 // kind.bits,)),
        (special, flat(special[::-1]), (special.size * 8 // kind.bits,)),
        (special, flat(np.roll(special, 4)), (special.size * 8 // kind.bits,)),
        (flat(b"\0"), flat(b"\1"), ()),
        (_noise(1001), _noise(1001, 1), (1001,)),
    ]


def _noise(count: int, seed: int = 0) -> Bytes:
    return flat(np.random.default_rng(seed).bytes(count))


def base_for(encoding: Encoding, base: Bytes) -> Bytes | None:
    """Return ``base`` where the encoding works against one."""
    return base if encoding.needs_base else None


def frozen(encoded: Encoded | None) -> object:
    """Return a value that equals that of the same result."""
    if encoded is None:
        return None
    return encoded.params, [(part.word, bytes(part.data)) for part in encoded.parts]


def mutations(encoded: Encoded) -> Iterator[Encoded]:
    """Yield frames as a stranger may write them: well-formed, and not what the encoding writes."""
    params, parts = encoded.params, encoded.parts
    yield from (Encoded(params, ()), Encoded(params, (*parts, Part(1, b"x"))))
    for other in (b"", params + b"\0", params[:-1], b"\xff" * len(params)):
        yield Encoded(other, parts)
    for i, part in enumerate(parts):
        data = bytes(part.data)
        yield Encoded(params, parts[:i] + parts[i + 1 :])
        for changed in (
            Part(part.word, b""),
            Part(part.word, data[part.word :]),
            Part(part.word, data + bytes(part.word)),
            Part(part.word, b"\xff" * len(data)),
            Part(part.word, bytes(len(data))),
            Part(1 if part.word > 1 else 2, data + data[: len(data) % 2]),
        ):
            yield Encoded(params, (*parts[:i], changed, *parts[i + 1 :]))
