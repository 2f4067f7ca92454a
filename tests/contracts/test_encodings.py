"""What every encoding must do, built in or not: it is registered, so it is tested.

A third-party package runs this file, installed beside it, on its own encodings.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta.codec import Frame, decode_frame, encode_frame
from git_theta.core import registry
from git_theta.core.dtypes import DTYPES, DType, dtype
from git_theta.core.layout import Encoded, Geometry, Part
from git_theta.core.registry import Bytes, Encoding
from git_theta.errors import CorruptObjectError

NAMES = registry.names("encodings")
TYPES = [*DTYPES.values(), dtype("heard of tomorrow")]
# NaNs with payloads, infinities, zeros of both signs, subnormals, as 32, 16 and 8 bit floats.
SPECIAL = np.array(
    [
        [0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00001, 0x7F800001],
        [0x00000001, 0x80000001, 0x7F7FFFFF, 0x00008000, 0x7C00FC01, 0x80007FFF, 0xFF7F0080],
    ],
    "<u4",
).tobytes()


@pytest.fixture(params=NAMES)
def encoding(request: pytest.FixtureRequest) -> Encoding:
    return registry.encoding_named(request.param)


def flat(data: bytes | np.ndarray) -> Bytes:
    """Read-only, as chunks are: an encoding that writes to its input fails."""
    return np.frombuffer(bytes(data), np.uint8)


def noise(count: int, seed: int = 0) -> Bytes:
    return flat(np.random.default_rng(seed).bytes(count))


def weights(kind: DType, rows: int = 48, columns: int = 40, seed: int = 0) -> np.ndarray:
    """Values that look like weights, as words of the dtype (``rows`` times ``columns``)."""
    values = np.random.default_rng(seed).standard_normal((rows, columns)) * 0.05
    if kind.kind == "float" and kind.name != "BF16" and kind.word > 1:
        return values.astype(f"<f{kind.word}")
    words = values.astype("<f4").view("<u4") >> np.uint32(max(0, 32 - 8 * kind.word))
    return words.astype(f"<u{kind.word}")


def pairs(kind: DType) -> list[tuple[Bytes, Bytes, tuple[int, ...]]]:
    """Raw bytes, a base, and the shape of the tensor that they are."""
    old, other = weights(kind), weights(kind, seed=1)
    few = old.copy()
    few[5, 7:9] = other[5, 7:9]
    more = np.where(np.random.default_rng(2).random(old.shape) < 0.4, other, old)
    column = old.copy()
    column[:, 3] = other[:, 3]
    structured = (old * other[0, 0] if old.dtype.kind == "f" else old) + other[:1]
    results = [old, few, more, column, other, structured.astype(old.dtype)]
    shape = (48, 40 * 8 * kind.word // kind.bits)
    special = flat(SPECIAL * 16)
    return [
        *((flat(new.tobytes()), flat(old.tobytes()), shape) for new in results),
        (noise(3840), noise(3840, 1), (3840 * 8 // kind.bits,)),
        (special, flat(special[::-1]), (special.size * 8 // kind.bits,)),
        (special, flat(np.roll(special, 4)), (special.size * 8 // kind.bits,)),
        (flat(b"\0"), flat(b"\1"), ()),
        (noise(1001), noise(1001, 1), (1001,)),
    ]


def base_for(encoding: Encoding, base: Bytes) -> Bytes | None:
    return base if encoding.needs_base else None


def check(encoding: Encoding, raw: Bytes, base: Bytes | None, geometry: Geometry) -> Encoded | None:
    """Encode, carry through a frame, decode with what a frame tells; whatever applies is exact."""
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


def test_an_encoding_is_found_by_its_name_and_number(encoding: Encoding) -> None:
    assert encoding.name in NAMES
    assert 0 <= encoding.number <= 255
    assert registry.encoding_named(encoding.name) is encoding
    assert registry.encoding_numbered(encoding.number) is encoding


def test_full_always_applies() -> None:
    # The others may decline, and then there must be one that does not.
    full = registry.encoding_named("full")
    for kind in TYPES:
        for raw, _, shape in pairs(kind):
            assert check(full, raw, None, Geometry(kind, shape)) is not None


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_every_dtype_survives(encoding: Encoding, kind: DType) -> None:
    for raw, base, shape in pairs(kind):
        check(encoding, raw, base_for(encoding, base), Geometry(kind, shape))


@pytest.mark.parametrize("name", ["F32", "BF16", "I8", "C64"])
def test_a_base_of_another_length_is_declined_or_exact(encoding: Encoding, name: str) -> None:
    raw = flat(weights(dtype(name)).tobytes())
    geometry = Geometry(dtype(name), (raw.size // (dtype(name).bits // 8),))
    for base in (raw[:0], raw[:1], raw[: raw.size // 2], raw[:-8], flat(bytes(raw) + bytes(99))):
        check(encoding, raw, base_for(encoding, base), geometry)


@pytest.mark.parametrize("name", ["F64", "F32", "F16", "BF16", "U8"])
def test_a_slice_of_a_larger_tensor_survives(encoding: Encoding, name: str) -> None:
    old = weights(dtype(name), 600, 200)
    new = old.copy()
    new[::50] = weights(dtype(name), 600, 200, seed=1)[::50]
    raw, base = (flat(array[100:].tobytes()) for array in (new, old))
    geometry = Geometry(dtype(name), old.shape, first=100 * 200)
    check(encoding, raw, base_for(encoding, base), geometry)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_bytes_survive(data: st.DataObject) -> None:
    encoding = registry.encoding_named(data.draw(st.sampled_from(NAMES)))
    kind = data.draw(st.sampled_from(TYPES))
    raw = data.draw(st.binary(min_size=1, max_size=130))
    base = data.draw(st.binary(min_size=len(raw), max_size=len(raw)) | st.just(raw))
    changed = bytearray(base)
    changed[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(0, 255))
    shape = (len(raw) * 8 // kind.bits,)
    for new in (raw, changed):
        check(encoding, flat(new), base_for(encoding, flat(base)), Geometry(kind, shape))


@pytest.mark.parametrize("name", [n for n in NAMES if registry.encoding_named(n).needs_base])
def test_no_base_is_declined_where_one_is_needed(name: str) -> None:
    encoding = registry.encoding_named(name)
    raw = flat(weights(dtype("F32")).tobytes())
    assert encoding.encode(raw, None, Geometry(dtype("F32"), (48, 40))) is None
    with pytest.raises(CorruptObjectError):
        encoding.decode(Encoded(b"", ()), None, Geometry(dtype("F32")), raw.size)


def frozen(encoded: Encoded | None) -> object:
    if encoded is None:
        return None
    return encoded.params, [(part.word, bytes(part.data)) for part in encoded.parts]


def test_the_same_input_gives_the_same_result_in_any_thread(encoding: Encoding) -> None:
    def run(case: tuple[DType, Bytes, Bytes, tuple[int, ...]]) -> object:
        kind, raw, base, shape = case
        return frozen(encoding.encode(raw, base_for(encoding, base), Geometry(kind, shape)))

    kinds = [dtype(name) for name in ("F32", "BF16", "I8")]
    cases = [(kind, *pair) for kind in kinds for pair in pairs(kind)]
    expected = [run(case) for case in cases]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, cases * 3)) == expected * 3


def mutations(encoded: Encoded) -> list[Encoded]:
    """Frames as a stranger may write them: well-formed, and not what the encoding writes."""
    params, parts = encoded.params, encoded.parts
    found = [Encoded(params, ()), Encoded(params, (*parts, Part(1, b"x")))]
    found += [Encoded(p, parts) for p in (b"", params + b"\0", params[:-1], b"\xff" * len(params))]
    found += [Encoded(params, parts[:i] + parts[i + 1 :]) for i in range(len(parts))]
    for i, part in enumerate(parts):
        data = bytes(part.data)
        others = [
            Part(part.word, b""),
            Part(part.word, data[part.word :]),
            Part(part.word, data + bytes(part.word)),
            Part(part.word, b"\xff" * len(data)),
            Part(part.word, bytes(len(data))),
            Part(1 if part.word > 1 else 2, data + data[: len(data) % 2]),
        ]
        found += [Encoded(params, (*parts[:i], other, *parts[i + 1 :])) for other in others]
    return found


@pytest.mark.parametrize("name", ["F32", "BF16", "U8"])
def test_hostile_parts_are_refused_or_give_other_bytes(encoding: Encoding, name: str) -> None:
    # Whether the bytes are right, the content hash says; no other harm may come of them.
    geometry = Geometry(dtype(name))
    for raw, base, shape in pairs(dtype(name)):
        held = base_for(encoding, base)
        encoded = encoding.encode(raw, held, replace(geometry, shape=shape))
        for hostile in mutations(encoded) if encoded else []:
            with suppress(CorruptObjectError):
                decoded = encoding.decode(hostile, held, geometry, raw.size)
                assert (decoded.dtype, decoded.shape) == (np.uint8, raw.shape)


@pytest.mark.parametrize("name", ["F32", "BF16", "U8"])
def test_parts_that_are_missing_or_cut_are_refused(encoding: Encoding, name: str) -> None:
    geometry, refused = Geometry(dtype(name)), 0
    for raw, base, shape in pairs(dtype(name)):
        held = base_for(encoding, base)
        encoded = encoding.encode(raw, held, replace(geometry, shape=shape))
        if encoded is None:
            continue
        for hostile in (Encoded(encoded.params, ()), Encoded(encoded.params, encoded.parts[:-1])):
            with pytest.raises(CorruptObjectError):
                encoding.decode(hostile, held, geometry, raw.size)
            refused += 1
        for length in (1, raw.size - 1, raw.size + 1, 2 * raw.size):
            with suppress(CorruptObjectError):
                assert encoding.decode(encoded, held, geometry, max(1, length)).size == max(
                    1, length
                )
    assert refused or encoding.name not in ("full", "delta", "sparse")
