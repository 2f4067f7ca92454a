"""Files that no format knows: where they have floats, these are compared as words."""

from __future__ import annotations

import io

import ml_dtypes  # noqa: F401 - numpy knows bfloat16 then
import numpy as np
import pytest

from git_theta.core.layout import Layout
from git_theta.formats import check_layout, scan
from git_theta.testing.formats import MemorySource
from tests.support import checkpoints
from tests.support.growth import grown
from tests.support.tensorflow_files import bundle

ARRAYS = {
    f"layer-{n}/kernel": np.random.default_rng(n).standard_normal((300, 200)).astype("f4")
    for n in range(5)
}
DATA = "variables.data-00000-of-00001"


def _spans(data: bytes):
    layout, warning = scan(MemorySource(data), DATA)
    check_layout(layout, len(data))
    assert layout.format == "opaque"
    return layout.spans, warning


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shift", [0, 1, 2, 3, 101])
def test_the_width_of_words_and_their_phase_are_found(name, shift):
    values = np.random.default_rng(0).standard_normal(300_000).astype(np.dtype(name))
    (span,), warning = _spans(b"\x55" * shift + values.tobytes())
    assert warning is None
    assert span.dtype == f"U{8 * values.itemsize}"
    assert (span.start - shift) % values.itemsize == 0
    assert span.length > values.nbytes - 4


def test_a_change_of_phase_begins_another_run():
    values = np.random.default_rng(0).standard_normal(200_000).astype("f4").tobytes()
    spans, _ = _spans(values + b"x" + values + bytes(90_000) + values)
    assert [span.start % 4 for span in spans] == [0, 1]
    assert sum(span.length for span in spans) > 0.99 * (3 * len(values) + 90_000)


@pytest.mark.parametrize(
    "data",
    [
        np.random.default_rng(0).bytes(1 << 20),
        bytes(1 << 20),
        b"words that are no numbers, " * 40_000,
        np.arange(1 << 18, dtype="<u4").tobytes(),
        np.random.default_rng(0).standard_normal(900).astype("f4").tobytes(),
        b"x" * 100,
    ],
    ids=["noise", "zeros", "text", "counter", "small", "tiny"],
)
def test_what_has_no_floats_is_stored_whole_with_a_warning(data):
    layout, warning = scan(MemorySource(data), "notes.dat")
    assert layout == Layout("opaque")
    assert "no format recognises it" in warning


def test_a_file_whose_groups_could_not_be_followed_has_its_numbers():
    h5py = pytest.importorskip("h5py")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="latest") as file:
        for n in range(50):  # more links than a group keeps in its header
            file[f"layer.{n}"] = ARRAYS["layer-0/kernel"][:50]
    spans, warning = _spans(buffer.getvalue())
    assert warning is None
    assert sum(span.length for span in spans) > 0.9 * len(buffer.getvalue())


def test_what_a_format_claims_and_cannot_read_is_stored_whole():
    data = checkpoints.safetensors(ARRAYS)[:-9]
    layout, warning = scan(MemorySource(data), "m.safetensors")
    assert layout == Layout("opaque")
    assert "not a well-formed safetensors file" in warning


def test_a_fine_tune_saved_by_tensorflow_stores_what_it_stores_as_safetensors(tmp_path):
    tuned = checkpoints.finetuned(ARRAYS, scale=1e-4)
    made = {
        "m.safetensors": [checkpoints.safetensors(each) for each in (ARRAYS, tuned)],
        DATA: [bundle(each)[1] for each in (ARRAYS, tuned)],
    }
    added = {name: grown(tmp_path / name, name, *versions) for name, versions in made.items()}
    assert added[DATA] <= 1.05 * added["m.safetensors"]


def test_the_index_of_tensorflow_is_small_and_no_checkpoint():
    index, data = bundle(ARRAYS)
    assert len(index) < 1000 < len(data)
    assert scan(MemorySource(index), "variables.index")[0] == Layout("opaque")
