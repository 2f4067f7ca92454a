"""Small real checkpoints, the same bytes at every call."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest

from tests.support.formats import gguf_file, gguf_info


def tensors(seed: int = 0, rows: int = 16, layers: int = 2) -> dict[str, np.ndarray]:
    """``layers`` matrices of ``rows`` x 32 and vectors of 32, float32, Gaussian."""
    random = np.random.default_rng(seed)
    made: dict[str, np.ndarray] = {}
    for layer in range(layers):
        made[f"layer.{layer}.weight"] = random.standard_normal((rows, 32)).astype(np.float32)
        made[f"layer.{layer}.bias"] = random.standard_normal(32).astype(np.float32)
    return made


def safetensors(arrays: dict[str, np.ndarray] | None = None, **metadata: str) -> bytes:
    """A safetensors file written by the safetensors library."""
    from safetensors.numpy import save

    return save(tensors() if arrays is None else arrays, metadata=metadata or None)


def torch_zip(arrays: dict[str, np.ndarray] | None = None, *, legacy: bool = False) -> bytes:
    """A state dict written by ``torch.save`` (importing torch takes seconds).

    ``legacy``: as before PyTorch 1.6.
    """
    import torch

    chosen = tensors() if arrays is None else arrays
    buffer = io.BytesIO()
    state = {name: torch.from_numpy(array.copy()) for name, array in chosen.items()}
    torch.save(state, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


# Before 3.11.4 Python wrote 64-bit sizes into 32-bit fields too, and declared version 2.0 of
# ZIP (https://github.com/python/cpython/issues/103861): what `numpy.savez` writes then differs.
ZIP64_IS_SOUND = sys.version_info >= (3, 11, 4)
AS_NUMPY_WRITES = pytest.mark.skipif(not ZIP64_IS_SOUND, reason="its zipfile writes sizes twice")


def npz(arrays: dict[str, np.ndarray] | None = None) -> bytes:
    """A file written by ``numpy.savez``."""
    buffer = io.BytesIO()
    np.savez(buffer, **(tensors() if arrays is None else arrays))
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    """A file written by ``numpy.save``."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=array.dtype.hasobject)
    return buffer.getvalue()


def gguf(arrays: dict[str, np.ndarray] | None = None) -> bytes:
    """A GGUF file as llama.cpp's own writer lays it out."""
    infos, data = [], b""
    for name, array in (tensors() if arrays is None else arrays).items():
        infos.append(gguf_info(name, list(reversed(array.shape)), 0, len(data)))
        data += array.tobytes() + bytes(-array.nbytes % 32)
    return gguf_file([], infos, data)


def finetuned(
    arrays: dict[str, np.ndarray] | None = None, scale: float = 1e-3, seed: int = 1
) -> dict[str, np.ndarray]:
    """Every tensor moved a little, as a fine-tune does."""
    random = np.random.default_rng(seed)
    chosen = tensors() if arrays is None else arrays
    return {
        name: (array + scale * random.standard_normal(array.shape)).astype(array.dtype)
        for name, array in chosen.items()
    }
