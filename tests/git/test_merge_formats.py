"""Merging files that are not safetensors or torch: the weights are merged, all else is a side's."""

from __future__ import annotations

import io
import pickle
import re
import subprocess
import zipfile

import numpy as np

from tests.support import checkpoints
from tests.support.flax_files import flax_file
from tests.support.hdf5_files import hdf5_file
from tests.support.onnx_files import onnx_file

WRITERS = {
    "m.onnx": onnx_file,
    "m.h5": hdf5_file,
    "m.msgpack": flax_file,
    "m.pkl": pickle.dumps,
    "m.npz": checkpoints.npz,
}
BASE = checkpoints.tensors()


def _files(change: float) -> dict[str, bytes]:
    arrays = {name: (array + change).astype(np.float32) for name, array in BASE.items()}
    return {name: write(arrays) for name, write in WRITERS.items()}


def test_weights_of_every_format_are_averaged(model, theta) -> None:
    theta(model, "track", *(f"*.{name.partition('.')[2]}" for name in WRITERS))
    model.git("add", ".gitattributes")
    model.commit_files(_files(0))
    model.git("checkout", "-q", "-b", "side")
    model.commit_files(_files(1))
    model.git("checkout", "-q", "main")
    model.commit_files(_files(3))
    done = theta(model, "merge", "side", "--strategy", "average")
    assert done.returncode == 0, done.stderr
    ours, theirs = (
        {name: (array + change).astype(np.float32) for name, array in BASE.items()}
        for change in (3, 1)
    )
    mean = {name: ((ours[name].astype("f8") + theirs[name]) / 2).astype("f4") for name in BASE}
    for name, write in WRITERS.items():
        assert model.read(name) == write(mean), name


def test_branches_that_each_add_an_array_to_an_npz_file(model, theta) -> None:
    theta(model, "track", "*.npz")
    model.git("add", ".gitattributes")
    ours, theirs = ({**BASE, name: np.full((3, 2), 5, "f2")} for name in ("ours", "theirs"))
    model.commit_files({"m.npz": checkpoints.npz(BASE)})
    model.git("checkout", "-q", "-b", "side")
    model.commit_files({"m.npz": checkpoints.npz(theirs)})
    model.git("checkout", "-q", "main")
    model.commit_files({"m.npz": checkpoints.npz(ours)})
    model.git("merge", "-q", "side", "-m", "merged")
    data = model.read("m.npz")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        assert set(arrays) == set(ours | theirs)
        assert all((arrays[name] == array).all() for name, array in (ours | theirs).items())
    model.write("m.npz", data)
    model.git("add", "--renormalize", ".")
    assert model.git("status", "--porcelain") == ""


def _bzip2(**arrays: float) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as file:
        for name, value in arrays.items():
            data = io.BytesIO()
            np.save(data, np.full(8, value, "f4"))
            record = zipfile.ZipInfo(f"{name}.npy")
            how = zipfile.ZIP_BZIP2 if name.startswith("packed") else zipfile.ZIP_STORED
            file.writestr(record, data.getvalue(), how)
    return output.getvalue()


def test_arrays_that_no_merge_can_read_are_in_conflict(model, theta) -> None:
    """Theirs was lost with a note and exit 0: compressed by bzip2, it lies in no span."""
    theta(model, "track", "*.npz")
    model.git("add", ".gitattributes")
    model.commit_files({"m.npz": _bzip2(a=1, packed=1, packed2=1)})
    model.git("checkout", "-q", "-b", "side")
    model.commit_files({"m.npz": _bzip2(a=1, packed=2, packed2=1)})
    model.git("checkout", "-q", "main")
    model.commit_files({"m.npz": _bzip2(a=3, packed=1, packed2=1)})
    model.git("checkout", "-q", "-b", "other")
    model.git("merge", "-q", "side", "-m", "each changed one, and one of them no merge can read")
    assert model.read("m.npz") == _bzip2(a=3, packed=2, packed2=1)
    model.git("checkout", "-q", "main")
    model.commit_files({"m.npz": _bzip2(a=3, packed=1, packed2=4)})
    done = model.process("merge", "side")
    assert done.returncode
    assert b"parts of it are in a form that no merge can read" in done.stderr
    assert model.git("status", "--porcelain", "m.npz").startswith("UU")
    (command,) = re.findall(r"hint: (git checkout .*) \(or --ours\)", done.stderr.decode())
    subprocess.run(["sh", "-c", command], cwd=model.path, check=True)
    assert model.read("m.npz") == _bzip2(a=1, packed=2, packed2=1)
