"""Reads and rewrites real safetensors files with numpy, for the steps that are no training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

WORDS = "embeddings.word_embeddings.weight"
_METADATA = {"format": "pt"}


def trim_vocabulary(source: Path, target: Path, words: int) -> None:
    """Write ``source`` with the first ``words`` rows of its word embedding only."""
    weights = load_file(source)
    weights[WORDS] = weights[WORDS][:words]
    save_file(weights, target, metadata=_METADATA)


def is_average(merged: Path, base: Path, ours: Path, theirs: Path) -> bool:
    """Whether ``merged`` is a three-way merge by averaging: what both sides changed is the mean."""
    names = set(load_file(base))
    versions = [load_file(path) for path in (merged, base, ours, theirs)]
    return all(_is_mean(*(version[name] for version in versions)) for name in names)


def _is_mean(
    merged: NDArray[Any], base: NDArray[Any], ours: NDArray[Any], theirs: NDArray[Any]
) -> bool:
    expected = ((ours.astype(np.float64) + theirs) / 2).astype(merged.dtype)
    if np.array_equal(ours, base):
        expected = theirs
    elif np.array_equal(theirs, base):
        expected = ours
    return np.array_equal(merged, expected)


def cast(source: Path, target: Path, dtype: str) -> None:
    """Write ``source`` with its floats rounded to ``dtype`` (``bfloat16`` or ``float16``)."""
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    weights = {
        name: value.astype(kind) if value.dtype == np.float32 else value
        for name, value in load_file(source).items()
    }
    save_file(weights, target, metadata=_METADATA)
