"""The figures of a diff, against plain numpy in float64 on whole arrays."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from git_theta.checkpoint.on_disk import FileContent
from git_theta.commands.diff.changes import TensorChange, compare_tensors
from git_theta.commands.diff.floats import widen
from git_theta.commands.diff.values import Sums, measure
from git_theta.core.files import FileSource
from git_theta.core.settings import Settings
from tests.support import checkpoints

RANDOM = np.random.default_rng(7)
OLD = RANDOM.standard_normal((90, 1001)).astype(np.float32)
NEW = (OLD + 1e-3 * RANDOM.standard_normal(OLD.shape)).astype(np.float32)
NEW[::2] = OLD[::2]


def compared(
    folder: Path,
    old: dict[str, np.ndarray],
    new: dict[str, np.ndarray],
    chunk_sizes: tuple[int, int] = (1 << 16, 1 << 16),
) -> dict[str, tuple[TensorChange, Sums | None]]:
    sides = []
    sources = []
    for arrays, size, name in zip((old, new), chunk_sizes, ("old", "new"), strict=True):
        path = folder / f"{name}.safetensors"
        path.write_bytes(checkpoints.safetensors(arrays))
        sources.append(FileSource(path))
        sides.append(FileContent(sources[-1], path.name, Settings(chunk_size=size)))
    changes = compare_tensors(sides[0].manifest, sides[1].manifest)
    sums = [figures[0] for figures in measure(changes, *sides, workers=2)]
    for source in sources:
        source.close()
    return {change.name: (change, found) for change, found in zip(changes, sums, strict=True)}


def check(found: Sums | None, old: np.ndarray, new: np.ndarray, changed: int) -> None:
    assert found is not None
    a, b = old.astype(np.float64).ravel(), new.astype(np.float64).ravel()
    d = b - a
    assert found.elements == a.size
    assert found.changed == changed
    assert found.relative == pytest.approx(np.linalg.norm(d) / np.linalg.norm(a), rel=1e-12)
    cosine = a @ b / math.sqrt((a @ a) * (b @ b))
    assert found.cosine == pytest.approx(cosine, rel=1e-14)
    assert found.largest == np.abs(d).max()


# Chunks that end at the same places, at some of them, at none, and inside elements.
@pytest.mark.parametrize(
    "sizes", [(1 << 16, 1 << 16), (1 << 16, 3 << 14), (1 << 20, 1 << 14), (10_001, 4_099)]
)
def test_figures_do_not_depend_on_how_files_are_cut(tmp_path, sizes):
    found = compared(tmp_path, {"w": OLD.ravel()}, {"w": NEW.ravel()}, sizes)
    check(found["w"][1], OLD, NEW, int(np.count_nonzero(OLD != NEW)))


def test_a_cast_is_compared_by_value(tmp_path):
    half = NEW.astype(np.float16)
    change, sums = compared(tmp_path, {"w": OLD}, {"w": half})["w"]
    assert change.kind == "cast"
    check(sums, OLD, half, int(np.count_nonzero(OLD.astype(np.float64) != half)))


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.int8, np.uint16])
def test_dtypes(tmp_path, dtype):
    scale = 1 if np.dtype(dtype).kind == "f" else 30
    old, new = (np.abs(scale * array).astype(dtype) for array in (OLD, NEW + 0.1))
    found = compared(tmp_path, {"w": old}, {"w": new})
    check(found["w"][1], old, new, int(np.count_nonzero(old != new)))


def test_truth_values(tmp_path):
    old, new = OLD > 0, NEW > 0.1
    found = compared(tmp_path, {"w": old}, {"w": new})
    check(found["w"][1], old, new, int(np.count_nonzero(old != new)))


def test_tiny_and_huge_values_keep_their_figures(tmp_path):
    # Their squares are below, and above, what float32 can hold.
    for scale in (1e-30, 1e30):
        old, new = (OLD * np.float32(scale), NEW * np.float32(scale))
        found = compared(tmp_path, {"w": old}, {"w": new})
        check(found["w"][1], old, new, int(np.count_nonzero(old != new)))


def test_nans_and_infinities_are_counted_and_left_out_of_the_rest(tmp_path):
    old, new = OLD.copy(), NEW.copy()
    old[0, 0], new[1, :3], new[5, 5] = np.inf, np.nan, -np.inf
    _, sums = compared(tmp_path, {"w": old}, {"w": new})["w"]
    assert sums
    assert (sums.nans, sums.infinities) == ((0, 3), (1, 1))
    both = np.isfinite(old) & np.isfinite(new)
    a, b = old[both].astype(np.float64), new[both].astype(np.float64)
    assert sums.relative == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a), rel=1e-12)
    assert sums.changed == np.count_nonzero(old.view(np.uint32) != new.view(np.uint32))


def test_what_is_all_zeros_has_no_relative_change(tmp_path):
    _, sums = compared(tmp_path, {"w": np.zeros(8, np.float32)}, {"w": OLD[0, :8]})["w"]
    assert sums
    assert (sums.relative, sums.cosine, sums.share) == (None, None, 1.0)


def test_shapes_of_other_sizes_are_not_compared(tmp_path):
    found = compared(tmp_path, {"a": OLD, "b": OLD}, {"a": OLD[:9], "b": NEW.reshape(-1)})
    assert [(change.kind, sums is None) for change, sums in found.values()] == [
        ("reshaped", True),
        ("reshaped", False),
    ]
    check(found["b"][1], OLD, NEW, int(np.count_nonzero(OLD != NEW)))


def test_kinds_come_from_manifests(tmp_path):
    old = {"same": OLD[0], "was": OLD[1], "gone": OLD[2], "empty": OLD[:0]}
    new = {"same": OLD[0], "is": OLD[1], "fresh": OLD[3], "void": OLD[:0]}
    found = compared(tmp_path, old, new)
    kinds = {
        name: (change.kind, change.old and change.old.name) for name, (change, _) in found.items()
    }
    assert kinds == {
        "is": ("renamed", "was"),
        "gone": ("removed", "gone"),
        "empty": ("removed", "empty"),
        "fresh": ("added", None),
        "void": ("added", None),
    }


def test_torch_and_we_read_the_same_numbers():
    torch = pytest.importorskip("torch")
    types = {
        "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
        "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
        "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    }
    raw = np.arange(1 << 16, dtype=np.uint16).view(np.uint8)
    for name, dtype in types.items():
        expected = torch.from_numpy(raw.copy()).view(dtype).to(torch.float64).numpy()
        np.testing.assert_array_equal(widen(raw, name), expected, err_msg=name)
    scales = widen(np.arange(256, dtype=np.uint8), "F8_E8M0")
    np.testing.assert_array_equal(scales[:255], 2.0 ** (np.arange(255) - 127))
    assert np.isnan(scales[255])
