"""The frames of version 1, frozen: bytes that a reader has to read for ever.

A writer may compress planes as it likes, so only frames without zstd planes are also compared
with what is written today.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from git_theta.codec import Frame, decode_frame, encode_frame
from git_theta.core import registry
from git_theta.core.dtypes import dtype
from git_theta.core.hashes import content_hash
from git_theta.core.layout import Geometry
from tests.support.spec_reader import DECODERS, parse_frame


@dataclass(frozen=True)
class Golden:
    encoding: str
    dtype: str
    raw: bytes
    base: bytes | None
    frame: str
    has_zstd: bool


def _floats(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


LINE = np.arange(40, dtype="<f4") / 8 + 1
BENT = (LINE.view("<u4") + np.arange(40, dtype="<u4") * 977).tobytes()
PATCHED = LINE.copy()
PATCHED[[3, 39]] = -0.0, np.nan
DECAYED = LINE.view("<u4") - np.array([120, 180] * 20, "<u4")
DECAYED[[1, 30]] = 7, 0x80000000
DECAYED, LONG_LINE = np.resize(DECAYED, 200), np.resize(LINE, 200)
RISE = np.arange(0x3F80, 0x3F80 + 33, dtype="<u2")
SIZES = np.resize(np.array([0x3A10, 0x3C80, 0xBD05, 0x3D70, 0xBD71], "<u2"), 8209)
MOVED = SIZES + np.resize(np.array([5, 0, 0, 1, 0, 0xFFF7, 0xFFFF, 0, 2, 40], "<u2"), 8209)
MOVED[::400], MOVED[201::400] = np.arange(21) * 977, np.arange(21) * 1999
STEPS = np.array([0, 1, 0xFFFF, 0, 2] * 6 + [300, 0, 1], "<u2")

FRAMES = {
    "full, raw and constant planes": Golden(
        "full",
        "F32",
        _floats(1, 2, 3),
        None,
        "475448460100000173000000000000000c000000000000008eca85c9292e3abab7a974e83632188929459d08"
        "e70b537721c4919e22ab0a270346333200000403000000000000000201000000000000000201000000000000"
        "0000030000000000000000030000000000000000008000403f4040",
        has_zstd=False,
    ),
    "full, a zstd plane": Golden(
        "full",
        "U8",
        b"planes of bytes, " * 12,
        None,
        "47544846010000017000000000000000cc00000000000000c9158e02b6d2b2b06847330fef6605d31d26c30d"
        "fbb0f178049a49cd3737fba6025538000001cc0000000000000001210000000000000028b52ffd20ccc50000"
        "88706c616e6573206f662062797465732c2001007144cd25",
        has_zstd=True,
    ),
    "plain delta": Golden(
        "delta",
        "F32",
        BENT,
        LINE.tobytes(),
        "4754484601010101f400000000000000a000000000000000386775ec8d0b281e8713707b7ce87cd555a9dae1"
        "d277e28a2fc28b32b1460e862440156faaa8bc2941b8f2f5c3161b991650c8b8f066b44e5d1b4fdaf41c7938"
        "0346333201000004280000000000000000280000000000000000280000000000000001170000000000000002"
        "010000000000000000a244e6882acc6e10b254f6983adc7e20c26406a84aec8e30d27416b85afc9e40e28426"
        "c86a0cae00070f161e262d353d444c535b636a727a81899198a0a7afb7bec6ced5dde4ecf4fb030b121a2229"
        "28b52ffd2028750000400000010101010101010038c00200",
        has_zstd=True,
    ),
    "narrow delta": Golden(
        "delta",
        "BF16",
        (RISE + STEPS).tobytes(),
        RISE.tobytes(),
        "4754484601010102a00000000000000042000000000000007c01629209139bc66ac06aeda14dcd922b655a6d"
        "6d39277f3e24b54762da0586e6a97a7b460f6a8a01eabe3fea5ecdf8f53b06898b2ff9e07c7274346797b4ee"
        "0442463136010001011100000000000000001100000000000000020100000000000000020100000000000000"
        "0201000000000000002001041240200104124020010412400f025802",
        has_zstd=False,
    ),
    "narrow delta with a table": Golden(
        "delta",
        "F32",
        DECAYED.tobytes(),
        LONG_LINE.tobytes(),
        "475448460101010201010000000000002003000000000000ac9b774da2a529c6dff5cd2e56a6c4797eff5dc5"
        "aa96be8c213e96402d1f091eb9d8e6b3f23efd9e84d86a90314ce99afc668c257eedca62da4ba235e01fe5af"
        "034633321f000100000100020003000400050006000700080009000a000b000c00ef00670101640000000000"
        "0000011d00000000000000040a00000000000000000a00000000000000000a00000000000000000a00000000"
        "000000000a0000000000000028b52ffd2064a5000048fdedefededededfded0300be29017098036001f100f1"
        "00f100f100f100ff00ff00ff00ff00ff001fd01fd01fd01fd01fd07f7e7f7e7f7e7f7e7f7e",
        has_zstd=True,
    ),
    "delta in two streams": Golden(
        "delta",
        "BF16",
        MOVED.tobytes(),
        SIZES.tobytes(),
        "4754484601010104b80100000000000022400000000000005b5b506afc340ca281e01b2fe2b7f8acf7cd6fb7"
        "34bf10a4473d4399428d43fe8d8862db61da4c0221cf73574bdfeb097af3c509d815437fc456004cccb15f8c"
        "0442463136420002803c1f010a001100a10100064309a20de51087182920cb276d2f0f37b13e5346f54d0100"
        "000100020004005000f003ad0b8e134b1b2c23e92aca3268420652a461013503000000000000014d00000000"
        "00000002080000000000000000080000000000000000080000000000000001d40c000000000000014a000000"
        "00000000020b00000000000000000b00000000000000000b0000000000000028b52ffd6035021d0200a4021f"
        "101f101f101f101f101e101d101c101b101a10191018101710161014101210131015101f101f101f10155002"
        "00c9e7f3f97c3e9fcfe7f3f97c3e9fcfe7f3f9041f7ddb399744e688746c645d55151c2428b52ffd60d40b05"
        "020088000201430f0a08060507090b0c0d0e0f030f001f41251c401d07508c0328e100ea3880621c40090750"
        "c70114e3004a38405d9f91a92260027c027a73d41101ff61c3258742e07e1cba587869594a3a718090a0afbf",
        has_zstd=True,
    ),
    "sparse": Golden(
        "sparse",
        "F32",
        PATCHED.tobytes(),
        LINE.tobytes(),
        "4754484601020102a500000000000000a00000000000000081eb0d2889fd0395ea9498f26f50bad2d1c1a8a6"
        "3d516af39518853f47e6839d2440156faaa8bc2941b8f2f5c3161b991650c8b8f066b44e5d1b4fdaf41c7938"
        "0346333200000102000000000000000002000000000000000402000000000000000201000000000000000201"
        "0000000000000000020000000000000000020000000000000003230000a008807e",
        has_zstd=False,
    ),
    "narrow delta from a shorter base": Golden(
        "delta",
        "I16",
        b"\1\0\2\0\3\0\4\0",
        b"\1\0\3\0",
        "47544846010101028e000000000000000800000000000000fb650186c337f3fd78335483c0b87e4950ba8dc6"
        "681a0a0eda9060084e01046e3b1abac4209f47ca401e053c822cec6c95c6ef8371f310582c9574fc391e7520"
        "0349313601000101020000000000000000020000000000000002000000000000000000000000000000000000"
        "00000000000000001086",
        has_zstd=False,
    ),
}


def _array(data: bytes | None) -> np.ndarray | None:
    return None if data is None else np.frombuffer(data, np.uint8)


@pytest.mark.parametrize("golden", FRAMES.values(), ids=FRAMES.keys())
def test_frozen_frames_are_read(golden: Golden) -> None:
    frame = decode_frame(bytes.fromhex(golden.frame))
    encoding = registry.encoding_named(golden.encoding)
    assert frame.encoding == encoding.number
    assert frame.dtype == golden.dtype
    assert frame.content == content_hash(golden.raw)
    assert frame.base == (content_hash(golden.base) if golden.base else None)
    geometry = Geometry(dtype(frame.dtype))
    decoded = encoding.decode(frame.encoded, _array(golden.base), geometry, frame.raw_length)
    assert decoded.tobytes() == golden.raw


@pytest.mark.parametrize("golden", FRAMES.values(), ids=FRAMES.keys())
def test_frozen_frames_are_read_from_the_specification(golden: Golden) -> None:
    frame = parse_frame(bytes.fromhex(golden.frame))
    assert DECODERS[frame.encoding](frame, golden.base or b"") == golden.raw


@pytest.mark.parametrize(
    "golden", [g for g in FRAMES.values() if not g.has_zstd], ids=lambda golden: golden.dtype
)
def test_frames_are_written_as_they_were(golden: Golden) -> None:
    encoding = registry.encoding_named(golden.encoding)
    raw, base = _array(golden.raw), _array(golden.base)
    encoded = encoding.encode(raw, base, Geometry(dtype(golden.dtype)))
    frame = Frame(
        encoding.number,
        golden.dtype,
        len(golden.raw),
        content_hash(golden.raw),
        content_hash(golden.base) if golden.base else None,
        encoded,
    )
    assert b"".join(encode_frame(frame)).hex() == golden.frame
