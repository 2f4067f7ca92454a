from __future__ import annotations

import gguf
import numpy as np
import pytest

from git_theta.codec import estimate
from git_theta.core import registry
from git_theta.core.blocks import BLOCKS
from git_theta.core.dtypes import dtype
from git_theta.core.layout import Encoded, Geometry, Part
from git_theta.encodings.blocks import ENCODING
from git_theta.errors import CorruptObjectError
from git_theta.formats.gguf import _TYPES
from tests.support.weights import gaussian

SIZES = {kind.dtype: kind.size for kind in _TYPES.values()}


def encode(raw: np.ndarray, name: str) -> Encoded | None:
    return ENCODING.encode(raw.reshape(-1), None, Geometry(dtype(name), raw.shape))


@pytest.mark.parametrize("name", BLOCKS)
def test_the_fields_fill_the_block_and_come_back(name):
    assert sum(field.size for field in BLOCKS[name]) == SIZES[name]
    raw = np.random.default_rng(0).integers(0, 256, (7, SIZES[name]), np.uint8)
    encoded = encode(raw, name)
    assert len(encoded.parts) == len(BLOCKS[name])
    decoded = ENCODING.decode(encoded, None, Geometry(dtype(name)), raw.size)
    assert decoded.tobytes() == raw.tobytes()
    assert encode(raw.reshape(-1)[1:], name) is None


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q8_0"])
def test_what_the_library_quantises_takes_less_field_by_field(name):
    kind = gguf.GGMLQuantizationType[name]
    raw = gguf.quants.quantize(gaussian((2048, 256), "F32", 0), kind)
    encoded = encode(raw, f"GGUF_{name}")
    scales = raw.reshape(-1, SIZES[f"GGUF_{name}"])[:, :2]
    assert bytes(encoded.parts[0].data) == scales.tobytes()
    plain = registry.encoding_named("full").encode(
        raw.reshape(-1), None, Geometry(dtype(f"GGUF_{name}"))
    )
    assert estimate(encoded.parts) < 0.99 * estimate(plain.parts)


@pytest.mark.parametrize(
    ("params", "parts", "length"),
    [
        (b"", (), 36),
        (b"\2\1\0", (Part(2, bytes(4)), Part(1, bytes(32))), 36),
        (b"\2\0\0\1\x10\0", (Part(2, b""), Part(1, bytes(32))), 32),
        (b"\3\1\0\1\x10\0", (Part(2, bytes(4)), Part(1, bytes(32))), 36),
        (b"\2\1\0\1\x10\0", (Part(1, bytes(4)), Part(1, bytes(32))), 36),
        (b"\2\1\0\1\x10\0", (Part(2, bytes(6)), Part(1, bytes(32))), 36),
        (b"\2\1\0\1\x10\0", (Part(2, bytes(4)), Part(1, bytes(32))), 38),
    ],
)
def test_frames_that_do_not_fit_are_refused(params, parts, length):
    with pytest.raises(CorruptObjectError):
        ENCODING.decode(Encoded(params, parts), None, Geometry(dtype("GGUF_Q4_0")), length)
