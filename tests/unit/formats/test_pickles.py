from __future__ import annotations

import io
import pickle

import numpy as np
import pytest

from git_theta.core import registry
from git_theta.core.layout import Layout
from git_theta.errors import FormatError
from git_theta.formats import check_layout, scan
from git_theta.testing.formats import MemorySource
from tests.support import checkpoints

FORMAT = registry.format_named("pickle")
ARRAYS = checkpoints.tensors(rows=64)


def _spans(data: bytes) -> dict[str, tuple[object, ...]]:
    layout, warning = scan(MemorySource(data), "x.pkl")
    assert (layout.format, warning) == ("pickle", None)
    check_layout(layout, len(data))
    return {
        s.name: (s.dtype, s.shape, s.strides, data[s.start : s.start + s.length])
        for s in layout.spans
    }


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_are_found_in_every_protocol(protocol: int) -> None:
    odd = {
        "half": np.arange(64, dtype="f2"),
        "fortran": np.asfortranarray(np.arange(64.0).reshape(4, 16)),
        "big": np.arange(64, dtype=">f4"),
        "flags": np.ones(100, bool),
        "records": np.zeros(20, [("a", "f4"), ("b", "i2")]),
        "objects": np.array([None, {}]),
        "tiny": np.zeros(3),
    }
    value = {"params": ARRAYS, "list": [odd], "step": 3, "again": ARRAYS["layer.0.weight"]}
    data = pickle.dumps(value, protocol=protocol)
    found = _spans(data)
    for name, array in ARRAYS.items():
        assert found.pop(f"params.{name}") == ("F32", array.shape, None, array.tobytes())
    assert {name.removeprefix("list.0."): it[:3] for name, it in found.items()} == {
        "half": ("F16", (64,), None),
        "fortran": ("F64", (4, 16), (1, 4)),
        "big": ("U8", (256,), None),
        "flags": ("BOOL", (100,), None),
        "records": ("U8", (120,), None),
    }


def test_tensors_of_torch_are_found() -> None:
    import torch

    weight = torch.arange(600.0).reshape(20, 30)
    found = _spans(pickle.dumps({"w": weight, "other": [torch.ones(50)]}))
    assert sorted(it[3] for it in found.values()) == sorted(
        [weight.numpy().tobytes(), torch.ones(50).numpy().tobytes()]
    )


def test_a_large_pickle_is_read_in_parts() -> None:
    data = pickle.dumps({"a": np.zeros(1 << 20), "b": np.ones(1 << 20)})
    source = MemorySource(data)
    assert len(FORMAT.scan(source).spans) == 2
    assert source.read_bytes < 200_000


def test_what_has_no_arrays_is_whole_and_silent() -> None:
    layout, warning = scan(MemorySource(pickle.dumps({"x": [1, 2], "y": b"b" * 60})), "x.pkl")
    assert (layout, warning) == (Layout("pickle"), None)


def test_nothing_is_executed(capsys) -> None:
    class Bomb:
        def __reduce__(self):
            return print, ("executed",)

    scan(MemorySource(pickle.dumps([Bomb(), np.zeros(100)])), "x.pkl")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("length", [1, 3, 200, 4000])
def test_a_file_that_is_cut_off_is_refused(length: int) -> None:
    data = pickle.dumps(ARRAYS)[:length]
    with pytest.raises(FormatError):
        FORMAT.scan(MemorySource(data))
    # Cut where a full stop happens to be.
    with pytest.raises(FormatError):
        FORMAT.scan(MemorySource(data + b"."))


def test_pickles_in_a_row_are_not_one() -> None:
    buffer = io.BytesIO()
    pickle.dump(ARRAYS, buffer)
    pickle.dump(ARRAYS, buffer)
    with pytest.raises(FormatError):
        FORMAT.scan(MemorySource(buffer.getvalue()))
