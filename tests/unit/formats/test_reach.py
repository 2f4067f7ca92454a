"""What a fine-tune stores does not depend on the format that it is saved in."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from git_theta.checkpoint.clean import clean
from git_theta.checkpoint.context import StorageContext
from git_theta.core.settings import Settings
from git_theta.store import Index, ObjectStore
from git_theta.testing.formats import MemorySource
from tests.support import checkpoints
from tests.support.flax_files import flax_file
from tests.support.growth import grown, stored
from tests.support.onnx_files import onnx_file
from tests.support.tensorflow_files import bundle

# Matrices of 100 KB, which is small: what a tensor costs beside its bytes counts.
BASE = {
    f"layer.{n}.weight": np.random.default_rng(n).standard_normal((128, 200)).astype("f4")
    for n in range(6)
}
TUNED = checkpoints.finetuned(BASE, scale=1e-4)


def _h5py(chunks: bool, **options: object) -> Callable[..., bytes]:
    def write(arrays) -> bytes:
        h5py = pytest.importorskip("h5py")
        buffer = io.BytesIO()
        with h5py.File(buffer, "w", **options) as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array, chunks=(64, 200) if chunks else None)
        return buffer.getvalue()

    return write


def _library_gguf(arrays, folder: Path) -> bytes:
    gguf = pytest.importorskip("gguf")
    path = folder / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for name, array in arrays.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def _compressed(arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


CHUNKS, TENSORFLOW, COMPRESSED = "chunks.h5", "m.data-00000-of-00001", "compressed.npz"
WRITERS: dict[str, Callable[..., bytes]] = {
    "m.pt": checkpoints.torch_zip,
    "m.bin": lambda arrays: checkpoints.torch_zip(arrays, legacy=True),
    "m.npz": checkpoints.npz,
    COMPRESSED: _compressed,
    "m.onnx": onnx_file,
    "m.h5": _h5py(chunks=False),
    "latest.h5": _h5py(chunks=False, libver="latest"),
    CHUNKS: _h5py(chunks=True),
    "m.msgpack": flax_file,
    "m.pkl": pickle.dumps,
    TENSORFLOW: lambda arrays: bundle(arrays)[1],
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> int:
    """What the fine-tune stores as safetensors."""
    return _grown(tmp_path_factory.mktemp("alone"), "m.safetensors", checkpoints.safetensors)


@pytest.mark.parametrize("name", WRITERS)
def test_a_fine_tune_stores_what_it_stores_as_safetensors(name, alone, tmp_path):
    assert _grown(tmp_path, name, WRITERS[name]) <= 1.05 * alone


def test_a_fine_tune_that_the_library_of_gguf_wrote_does_too(alone, tmp_path):
    (tmp_path / "files").mkdir()
    added = _grown(tmp_path, "m.gguf", lambda it: _library_gguf(it, tmp_path / "files"))
    assert added <= 1.05 * alone


def _grown(root: Path, name: str, write: Callable[..., bytes]) -> int:
    return grown(root, name, write(BASE), write(TUNED))


# Without the files that have no tensors of the same bytes: halves, all in one piece, deflated.
@pytest.mark.parametrize(
    "name", [name for name in WRITERS if name not in (CHUNKS, TENSORFLOW, COMPRESSED)]
)
def test_the_same_weights_in_another_format_cost_nothing(name, tmp_path):
    with Index(tmp_path) as index:
        storage = StorageContext(ObjectStore(tmp_path), index, Settings())
        clean(MemorySource(checkpoints.safetensors(BASE)), "m.safetensors", storage)
        size, data = stored(storage), WRITERS[name](BASE)
        clean(MemorySource(data), name, storage)
        assert stored(storage) - size <= 0.01 * len(data)
