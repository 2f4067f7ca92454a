"""Numbers of a file that are in no tensor: a merge must not take those of one side for both."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
import torch

from git_theta.core import registry
from git_theta.errors import MergeError
from git_theta.testing.formats import MemorySource
from tests.support import onnx_files
from tests.support.merges import torch_file

ONES = np.ones(100, np.float32)
Make = Callable[[float], bytes]


def full(value: float) -> np.ndarray:
    return np.full(100, value, np.float32)


def records_in_npz(value: float) -> bytes:
    records = np.zeros(4, [("x", "f4"), ("n", "i4")])
    records["x"] = value
    return saved(lambda file: np.savez(file, w=ONES, records=records))


def second_array_in_npy(value: float) -> bytes:
    return saved(lambda file: (np.save(file, ONES), np.save(file, full(value))))


def saved(write: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def small_array_in_pickle(value: float) -> bytes:
    return pickle.dumps({"w": ONES, "bias": full(value)[:8]})


def array_of_objects_in_pickle(value: float) -> bytes:
    return pickle.dumps({"w": ONES, "objects": np.array([value, [value]], object)})


def bytes_in_pickle(value: float) -> bytes:
    return pickle.dumps({"w": ONES, "raw": full(value).tobytes()})


def array_in_torch(value: float) -> bytes:
    return torch_file({"w": torch.ones(9), "seen": full(value)})


def array_in_torch_of_protocol_4(value: float) -> bytes:
    content = {"w": torch.ones(9), "seen": full(value)}
    return saved(lambda file: torch.save(content, file, pickle_protocol=4))


def array_in_legacy_torch(value: float) -> bytes:
    content = {"w": torch.ones(9), "seen": full(value)}
    return saved(lambda file: torch.save(content, file, _use_new_zipfile_serialization=False))


def bytes_in_torch(value: float) -> bytes:
    return torch_file({"w": torch.ones(9), "raw": full(value).tobytes()})


def quantized(value: float) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weight = torch.quantize_per_tensor(torch.arange(9.0) * value, value, 0, torch.qint8)
        return torch_file({"w": torch.ones(9), "q": weight})


def compressed_code(value: float) -> bytes:
    """TorchScript compresses its code."""
    buffer = io.BytesIO(torch_file({"w": torch.ones(9)}))
    with zipfile.ZipFile(buffer, "a") as file:
        file.writestr("archive/code/__torch__.py", f"def forward(): {value}", zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def listed_in_onnx(value: float) -> bytes:
    listed = onnx_files.tensor_proto("b", 10, (9,), bytes([int(value)] * 9), field=5)
    return onnx_files.model_proto(onnx_files.tensor_proto("w", 1, (100,), ONES.tobytes()), listed)


def constant_in_onnx(value: float) -> bytes:
    helper = pytest.importorskip("onnx").helper
    constant = helper.make_tensor("c", 1, [100], full(value).tobytes(), raw=True)
    nodes = [
        helper.make_node("Constant", [], ["c"], value=constant),
        helper.make_node("Add", ["w", "c"], ["y"]),
    ]
    weight = helper.make_tensor("w", 1, [100], ONES.tobytes(), raw=True)
    output = helper.make_tensor_value_info("y", 1, [100])
    graph = helper.make_graph(nodes, "g", [], [output], [weight])
    made: bytes = helper.make_model(graph).SerializeToString()
    return made


def bytes_in_msgpack(value: float) -> bytes:
    msgpack = pytest.importorskip("msgpack")
    array = msgpack.packb(((100,), "float32", ONES.tobytes()))
    raw = {"nd": True, "data": full(value).tobytes()}
    packed: bytes = msgpack.packb({"w": msgpack.ExtType(1, array), "x": raw})
    return packed


def many_datasets_in_hdf5(value: float) -> bytes:
    h5py = pytest.importorskip("h5py")

    def write(buffer: io.BytesIO) -> None:
        with h5py.File(buffer, "w", libver="latest") as file:
            file["w"] = ONES
            for number in range(20):
                file[f"many/{number}"] = full(value)

    return saved(write)


def committed_type_in_hdf5(value: float) -> bytes:
    h5py = pytest.importorskip("h5py")

    def write(buffer: io.BytesIO) -> None:
        with h5py.File(buffer, "w") as file:
            file["w"] = ONES
            file["kind"] = np.dtype("f4")
            file.create_dataset("x", data=full(value), dtype=file["kind"])

    return saved(write)


def ragged_in_hdf5(value: float) -> bytes:
    h5py = pytest.importorskip("h5py")

    def write(buffer: io.BytesIO) -> None:
        with h5py.File(buffer, "w") as file:
            file["w"] = ONES
            rows = file.create_dataset("rows", (2,), dtype=h5py.vlen_dtype(np.float32))
            rows[0] = full(value)

    return saved(write)


def behind_safetensors(value: float) -> bytes:
    from tests.support.checkpoints import safetensors

    return safetensors({"w": ONES}) + full(value).tobytes()


HIDING = {
    records_in_npz: "m.npz",
    second_array_in_npy: "m.npy",
    small_array_in_pickle: "m.pkl",
    array_of_objects_in_pickle: "m.pkl",
    bytes_in_pickle: "m.pkl",
    array_in_torch: "m.pt",
    array_in_torch_of_protocol_4: "m.pt",
    array_in_legacy_torch: "m.pt",
    bytes_in_torch: "m.pt",
    quantized: "m.pt",
    compressed_code: "m.pt",
    listed_in_onnx: "m.onnx",
    constant_in_onnx: "m.onnx",
    bytes_in_msgpack: "m.msgpack",
    many_datasets_in_hdf5: "m.h5",
    committed_type_in_hdf5: "m.h5",
    ragged_in_hdf5: "m.h5",
    behind_safetensors: "m.safetensors",
}


@pytest.mark.parametrize(
    ("make", "name"), HIDING.items(), ids=lambda it: getattr(it, "__name__", it)
)
def test_what_both_sides_changed_and_no_merge_can_read(merger, make: Make, name: str) -> None:
    """Theirs was lost, with a note at most and exit code 0."""
    files = [make(value) for value in (1, 2, 3)]
    base, ours, theirs = (merger.store(each, name) for each in files)
    assert registry.format_named(base.format).scan(MemorySource(files[0])).hides
    with pytest.raises(MergeError, match="in a form that no merge can read") as caught:
        merger.execute(merger.versions(base, ours, theirs, path=name), "*=average")
    assert caught.value.hint.startswith(f"git checkout --theirs -- {name} && git add {name} ")
    one_sided = merger.execute(merger.versions(base, base, theirs, path=name), "*=average")
    assert merger.file(one_sided.manifest) == files[2]


def test_scales_come_with_the_integers_that_they_are_of(merger) -> None:
    """A quantized tensor of theirs was put beside the scale of ours."""
    base, theirs = quantized(1), quantized(3)
    ours = base.replace(torch.ones(9).numpy().tobytes(), torch.zeros(9).numpy().tobytes())
    versions = merger.versions(*(merger.store(each, "m.pt") for each in (base, ours, theirs)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged = torch.load(io.BytesIO(merger.file(merger.execute(versions).manifest)))
    assert torch.equal(merged["w"], torch.zeros(9))
    assert torch.equal(merged["q"].dequantize(), torch.arange(9.0) * 3)


def test_what_hides_nothing() -> None:
    """Numbers of an epoch, texts and empty arrays are facts like others."""
    facts = {"epoch": 3, "loss": np.float32(0.1), "none": np.zeros(0), "text": "a" * 999}
    for data in (torch_file({"w": torch.ones(9), **facts}), pickle.dumps({"w": ONES, **facts})):
        found = registry.format_named("torch" if data[:2] == b"PK" else "pickle")
        assert not found.scan(MemorySource(data)).hides
