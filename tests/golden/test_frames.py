"""The frames of version 1, frozen: bytes that a reader has to read for ever.

A writer may compress planes as it likes, so only frames without zstd planes are also compared
with what is written today.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from git_theta.checkpoint.transposition import transposed
from git_theta.codec import Frame, decode_frame, encode_frame
from git_theta.core import registry
from git_theta.core.dtypes import dtype
from git_theta.core.hashes import content_hash
from git_theta.core.layout import Geometry, Transposition
from standalone_reader import DECODERS, parse_frame, turn


@dataclass(frozen=True)
class Golden:
    encoding: str
    dtype: str
    raw: bytes
    base: bytes | None
    frame: str
    has_zstd: bool
    transposition: Transposition | None = None


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
MOVED = SIZES.copy()
MOVED[5::85] += 9
MOVED[3::115] -= 1
MOVED[[1, 8208]] = 0, 0xFFFF
STEPS = np.array([0, 1, 0xFFFF, 0, 2] * 6 + [300, 0, 1], "<u2")
ROUNDED = np.linspace(-2, 3, 48, dtype="<f4")
ROUNDED[7] = np.nan
HALF = ROUNDED.view("<u4") + 0x7FFF + (ROUNDED.view("<u4") >> 16 & 1) >> 16
HALF = HALF.astype("<u2")
HALF[9] ^= 3
LESS = np.where(np.arange(48) % 5 < 3, ROUNDED.view("<u4") & 0x80000000, ROUNDED.view("<u4"))
LESS[[2, 14]] = 7, ROUNDED.view("<u4")[14] + 9
BLOCKS = b"".join(bytes([n, 0x3C, *range(16 * n, 16 * n + 16)]) for n in range(3))
# Deflated by zlib 1.2: in another version its streams would be others.
STREAM_BEFORE = bytes.fromhex(
    "33d3501014666261e436d1b45250b3d3d35052b61634d1629034536632d033e3663567546215969396646460"
    "67d052d41450379090b537b693d0b6d134d5d195b0e050d5335394109696d7b360b15612d3561110d1535310"
    "359014b510e0d355676695308598cccaac25aac2692e6369a4cb67c8ac2269cf63c3aaae6a296ca96dc16360"
    "c32caec1a6a061602d252367cb23cf2c6da32e66af66c3286b6a20252fa5c867c42225a4afaf6b6dcdcdcea1"
    "6767ad656bcec06ece6a67622bcea968276e2161c22727c26769cc616d2728ada425c369adc364a2c7adaec0"
    "68ad27ccc86ac0a960692dc8226faacea229c6276d6ecba96c2020c8cf6bc1cbc7c16e2864ac6aa66c60ccac"
    "2c2b2423256f62a2a16bab21ceaacca7c66866c36922c56465c3a46a6224656ecacec026cece2aa0a92868a3"
    "a36163c4c1642ec52c27212d2d222f6fa763c8206c27a860ae61c1a5a021a662af2fc2c22d6821682ca8a568"
    "ab626dabaf616ecfafc2c9a6c5ac6bc2a52d6969a5a2acabaacf63a468a028ccaa68c7a422c3a064a86fa7a8"
    "0a00"
)
STREAM = bytes.fromhex(
    "1dcf079282300000405a044491a25215429180021142bb40f8ffaf6eee3eb0333ba0d8b40589d748f913bf58"
    "8392949aa4e2bc311570336a60e213603f038fe764ae82a551f4ee63ef99fb5ecbe153bbb392372374ed206a"
    "668926f777665c9b577cc3de6d36f4ba10813b54ff3210ab5ba64ee1d2d5fa57ccbcfdb482225fece53d9ff0"
    "2a3ae810234cfdf0b99d222e588bfbfe5af9c780fdc8877a27f956dbd6946ab2d2305a6d13274f8091cd5121"
    "7366979c9f577de915cacc20a942957e04d26845ccd3c6e60156e3859a5234145279d7836953536c5897f37c"
    "d615f96bf5f998e25e4c1f56e84784a07a430e48f5173fae2af1ff9639e9fc6990b8832303a384e6fa416ba7"
    "08932f3edd20b84611fb7c399b99f184e6638ceed9de5e25cd9caddeace096d1ad45d37ec9d44325d6e4f8f6"
    "969f2cadf3f6d4410c6d009990855cf26d19cc7f01"
)
MATRIX = np.arange(12, dtype="<f4").reshape(3, 4)
TURNED = np.array(MATRIX.T)
TURNED[1, 2] = -1

FRAMES = {
    "full, raw and constant planes": Golden(
        "full",
        "F32",
        _floats(1, 2, 3),
        None,
        "475448460100000174000000000000000c000000000000008eca85c9292e3abab7a974e83632188929459d08"
        "e70b537721c4919e22ab0a270346333200000408030000000000000002010000000000000002010000000000"
        "000000030000000000000000030000000000000000000000407f8080",
        has_zstd=False,
    ),
    "full, a zstd plane": Golden(
        "full",
        "U8",
        b"planes of bytes, " * 12,
        None,
        "47544846010000017100000000000000cc00000000000000c9158e02b6d2b2b06847330fef6605d31d26c30d"
        "fbb0f178049a49cd3737fba602553800000100cc0000000000000001210000000000000028b52ffd20ccc500"
        "0088706c616e6573206f662062797465732c2001007144cd25",
        has_zstd=True,
    ),
    "delta": Golden(
        "delta",
        "F32",
        BENT,
        LINE.tobytes(),
        "47544846010101021b01000000000000a000000000000000386775ec8d0b281e8713707b7ce87cd555a9dae1"
        "d277e28a2fc28b32b1460e862440156faaa8bc2941b8f2f5c3161b991650c8b8f066b44e5d1b4fdaf41c7938"
        "034633325600170001000000a207440fe616881e2a26cc2d6e35103db244544cf653985b3a63dc6a7e723139"
        "3939393939393939393939393939390000000000000000000000000000000000000000000000000000000000"
        "39ff69630100160000000000000000160000000000000001002b00000000000000002b0000000000000027c0"
        "0100c620c911cb0232e43dd54ea6d308769bc0bd205a38204b0c22544c09643f1d5f985bdaa7332c1cdc4aab"
        "e3273d59205a7c271c982c90256a1a06916b0a",
        has_zstd=False,
    ),
    "delta of few words in one lane": Golden(
        "delta",
        "BF16",
        (RISE + STEPS).tobytes(),
        RISE.tobytes(),
        "4754484601010102ba0000000000000042000000000000007c01629209139bc66ac06aeda14dcd922b655a6d"
        "6d39277f3e24b54762da0586e6a97a7b460f6a8a01eabe3fea5ecdf8f53b06898b2ff9e07c7274346797b4ee"
        "044246313628000700000023ff676b0067000000000000000000000000000000000000000000000000000000"
        "00003f01000c00000000000000000c000000000000000100010000000000000002010000000000000019f10c"
        "0000a61165a50c901658",
        has_zstd=False,
    ),
    "delta with literals": Golden(
        "delta",
        "F32",
        DECAYED.tobytes(),
        LONG_LINE.tobytes(),
        "47544846010101023e010000000000002003000000000000ac9b774da2a529c6dff5cd2e56a6c4797eff5dc5"
        "aa96be8c213e96402d1f091eb9d8e6b3f23efd9e84d86a90314ce99afc668c257eedca62da4ba235e01fe5af"
        "0346333273001700010000000100020003000400050006000700080009000a000b000c000d00ef0067014e00"
        "00000000000000000000000000ff7e0000000000000000000000000000000000000000000000000000000000"
        "0000000000000000000000000000000000000000000000000000000000000000490100220000000000000000"
        "22000000000000000100250000000000000000250000000000000098b3a200da74760acf2df75c8417076bd1"
        "e2eb5b629cc800a3fb4eef34459b17789bf1ff1f1f0000dac7ff7f7c0000681ffffff10100a07dfcffc70700"
        "80f6f1ff1f1f0000da03",
        has_zstd=False,
    ),
    "delta in contexts": Golden(
        "delta",
        "BF16",
        MOVED.tobytes(),
        SIZES.tobytes(),
        "4754484601010102a801000000000000224000000000000070371f6050daf3baaa661437fd53c8d5a2025fd5"
        "e51c62332678f58b8581a2968d8862db61da4c0221cf73574bdfeb097af3c509d815437fc456004cccb15f8c"
        "04424631366300070000017a2eff00000000000000000000000000000000000000000000003e000000000000"
        "0000000000000000000000000000012eff2d0000000000000000000000000000000000000000000000000000"
        "0000000000000000000000000000000000010100980000000000000000980000000000000001002800000000"
        "000000002800000000000000b122fcce6f4df88f8473bad33e63bb5ac8ce212db5732310e689fa0cf72a0a3d"
        "c372dea65a8c12cb1c544682cca376a15e51941219638e01ecd0da1e92a96ac05881c08b8717d611973167be"
        "01b1f323cbd62fdd772c93783ae7ae9911270802fa264ec86753a65938ac056810aa2a15e2a4d73c4d52145d"
        "6c594abc5af83066c12edd6bdf9d098216ff6bf84f83e5c69a9ee610b8e02bb0ff5892244992244992244992"
        "2449922449922449922449922449922449922449922449922449e11a",
        has_zstd=False,
    ),
    "sparse": Golden(
        "sparse",
        "F32",
        PATCHED.tobytes(),
        LINE.tobytes(),
        "4754484601020102a700000000000000a00000000000000081eb0d2889fd0395ea9498f26f50bad2d1c1a8a6"
        "3d516af39518853f47e6839d2440156faaa8bc2941b8f2f5c3161b991650c8b8f066b44e5d1b4fdaf41c7938"
        "0346333200000100020000000000000000020000000000000004000200000000000000020100000000000000"
        "02010000000000000000020000000000000000020000000000000003230000a008807e",
        has_zstd=False,
    ),
    "delta from a shorter base": Golden(
        "delta",
        "I16",
        b"\1\0\2\0\3\0\4\0",
        b"\1\0\3\0",
        "475448460101010296000000000000000800000000000000fb650186c337f3fd78335483c0b87e4950ba8dc6"
        "681a0a0eda9060084e01046e3b1abac4209f47ca401e053c822cec6c95c6ef8371f310582c9574fc391e7520"
        "034931360e000800000009ff7000000000700070010004000000000000000004000000000000000100000000"
        "000000000000000000000000000000900301",
        has_zstd=False,
    ),
    "cast": Golden(
        "cast",
        "BF16",
        HALF.tobytes(),
        ROUNDED.tobytes(),
        "4754484601050102950000000000000060000000000000006c51f716f60e9938b854c4afc6e10e332fc10a34"
        "1302fa833582d19c5fa1f3686c90b937356a63315139a88131f503bd32ff7569141be47b6b0a93815e044db8"
        "0442463136010002010002000000000000000002000000000000000200020000000000000000020000000000"
        "000000020000000000000007018002ff00",
        has_zstd=False,
    ),
    "pruned": Golden(
        "pruned",
        "F32",
        LESS.tobytes(),
        ROUNDED.tobytes(),
        "4754484601080103cc00000000000000c000000000000000cb59ddb019fe344bb7a3ae704c23ce6b8853d9bb"
        "a396416c58d8e0b007bc8e366c90b937356a63315139a88131f503bd32ff7569141be47b6b0a93815e044db8"
        "034633320a00010000c17f000000000201000600000000000000000600000000000000010002000000000000"
        "0000020000000000000004000200000000000000000200000000000000000200000000000000000200000000"
        "0000000002000000000000001c638c31c618020be212770036008000",
        has_zstd=False,
    ),
    "blocks": Golden(
        "blocks",
        "GGUF_Q4_0",
        BLOCKS,
        None,
        "4754484601060002ad000000000000003600000000000000bf6f15b38b65856989c2f76d6fa554b088854dc8"
        "fcb0f6eed64e7952be27f01809474755465f51345f3006000201000110000200030000000000000000030000"
        "0000000000020100000000000000010030000000000000000030000000000000000001023c00010203040506"
        "0708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f",
        has_zstd=False,
    ),
    "deflate": Golden(
        "deflate",
        "DEFLATED_U8",
        STREAM,
        STREAM_BEFORE,
        "47544846010701077b0100000000000049010000000000006584eb901bb58f6dbff46c1de0f45dcfc155335f"
        "16a2973bfaadd0f0fcf3c2fd1e09847834a6bb6a08556cd895525d5314e43f1ee3d2d96bc1607b05c3a800f4"
        "0b4445464c415445445f55382f00010290010000000000005538000000001eff141e0000140a000000000000"
        "000000000000000000000000140a00000a010021000000000000000021000000000000000400010000000000"
        "0000020100000000000000020100000000000000020100000000000000020100000000000000010002000000"
        "0000000000020000000000000001000200000000000000000200000000000000020002000000000000000201"
        "0000000000000002010000000000000001001000000000000000001000000000000000010002000000000000"
        "000002000000000000001dcf079282300000405a044491a25215429180021142bb40f8ffaf6eee3eb0330b89"
        "01000065b8020100008c4f0642171b13f79d4de3eff43f3c616665",
        has_zstd=False,
    ),
    "sparse against a transposed base": Golden(
        "sparse",
        "F32",
        TURNED.tobytes(),
        MATRIX.tobytes(),
        "4754484601020302ad0000000000000030000000000000004e882fd1683a983854afb6fe079a4dfa17d67009"
        "ba4ba67fced1fd48218775e7f0c3efa17cc19e8f9a2f37cb39f903457cb204fb291b7cd9af42d936788c705e"
        "0404000000000000000346333200000100010000000000000002010000000000000004000100000000000000"
        "020100000000000000020100000000000000020100000000000000020100000000000000050000e0fc",
        has_zstd=False,
        transposition=Transposition(4, 4),
    ),
}


def _array(data: bytes | None) -> np.ndarray | None:
    return None if data is None else np.frombuffer(data, np.uint8)


def _base(golden: Golden) -> np.ndarray | None:
    base = _array(golden.base)
    return base if golden.transposition is None else transposed(base, golden.transposition)


@pytest.mark.parametrize("golden", FRAMES.values(), ids=FRAMES.keys())
def test_frozen_frames_are_read(golden: Golden) -> None:
    frame = decode_frame(bytes.fromhex(golden.frame))
    encoding = registry.encoding_named(golden.encoding)
    assert frame.encoding == encoding.number
    assert frame.dtype == golden.dtype
    assert frame.content == content_hash(golden.raw)
    assert frame.base == (content_hash(golden.base) if golden.base else None)
    assert frame.transposition == golden.transposition
    geometry = Geometry(dtype(frame.dtype))
    decoded = encoding.decode(frame.encoded, _base(golden), geometry, frame.raw_length)
    assert decoded.tobytes() == golden.raw


@pytest.mark.parametrize("golden", FRAMES.values(), ids=FRAMES.keys())
def test_frozen_frames_are_read_from_the_specification(golden: Golden) -> None:
    frame = parse_frame(bytes.fromhex(golden.frame))
    base = turn(frame, golden.base or b"")
    assert DECODERS[frame.encoding](frame, base) == golden.raw


@pytest.mark.parametrize(
    "golden", [g for g in FRAMES.values() if not g.has_zstd], ids=lambda golden: golden.dtype
)
def test_frames_are_written_as_they_were(golden: Golden) -> None:
    encoding = registry.encoding_named(golden.encoding)
    raw, base = _array(golden.raw), _base(golden)
    encoded = encoding.encode(raw, base, Geometry(dtype(golden.dtype)))
    frame = Frame(
        encoding.number,
        golden.dtype,
        len(golden.raw),
        content_hash(golden.raw),
        content_hash(golden.base) if golden.base else None,
        encoded,
        golden.transposition,
    )
    assert b"".join(encode_frame(frame)).hex() == golden.frame
