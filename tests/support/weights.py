"""Weights and updates of them for tests of encodings and adapters."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from benchmarks.quickstart import real_checkpoint
from git_theta.core.dtypes import dtype
from git_theta.core.layout import Encoded, Geometry
from git_theta.core.registry import Encoding

NUMPY: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
}


def raw(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of an array, flat."""
    return np.frombuffer(array.tobytes(), np.uint8)


def gaussian(shape: tuple[int, ...], dtype: str, seed: int, scale: float = 0.05) -> NDArray[Any]:
    """Weights like a trained layer's."""
    values = np.random.default_rng(seed).standard_normal(shape) * scale
    return values.astype(np.float32).astype(NUMPY[dtype])


def lora(
    shape: tuple[int, int], rank: int, seed: int, size: float = 1e-2
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Factors (rows, r) and (r, parameters) as large as a trained adapter's."""
    rng = np.random.default_rng(seed)
    left = rng.standard_normal((shape[0], rank)) * size
    right = (rng.random((rank, shape[1])) * 2 - 1) / np.sqrt(shape[1])
    return left.astype(np.float32), right.astype(np.float32)


def merged(base: NDArray[Any], change: NDArray[Any]) -> NDArray[Any]:
    """The sum in the wider precision, rounded to the base's, as frameworks add in place."""
    with np.errstate(all="ignore"):
        wide = np.promote_types(change.dtype, np.float32 if base.itemsize < 8 else np.float64)
        return (base.astype(wide) + change.astype(wide)).astype(base.dtype)


def encoded_exactly(
    encoding: Encoding, actual: NDArray[Any], base: NDArray[Any], name: str
) -> Encoded | None:
    """Encode an array of dtype ``name``; what is made of it must decode to the same bytes."""
    encoded = encoding.encode(raw(actual), raw(base), Geometry(dtype(name), actual.shape))
    if encoded is not None:
        decoded = encoding.decode(encoded, raw(base), Geometry(dtype(name)), actual.nbytes)
        assert decoded.tobytes() == actual.tobytes()
    return encoded


def stored(encoded: Encoded) -> int:
    """Bytes of the parts once compressed."""
    from git_theta.codec import entropy, planes

    words = [(part.data, part.word) for part in encoded.parts]
    return sum(len(entropy.pack(plane)[1]) for it in words for plane in planes.split(*it))


def minilm() -> dict[str, NDArray[np.float32]]:
    """The float tensors of the real MiniLM checkpoint."""
    tensors = load_file(real_checkpoint())
    return {name: values for name, values in tensors.items() if values.dtype == np.float32}
