"""Measures what a model costs whose base is in the repository in another guise, against targets.

MiniLM in fp32, and a real fine-tune of it (see scripts/pipeline): renamed, transposed, in another
precision, pruned. None is named in HEAD: the base is found by the index. Transposed is everything
but the word embedding, whose 47 MB are two chunks. Fails when a target is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from benchmarks.fine_tunes import FineTunes
from benchmarks.table import table
from git_theta.checkpoint.clean import clean
from git_theta.checkpoint.context import StorageContext
from git_theta.store import Index, ObjectStore
from git_theta.testing.formats import MemorySource

Weights = Mapping[str, NDArray[Any]]

_STEPS = 60
_LARGE = "embeddings.word_embeddings.weight"
_DTYPES = {"bf16": np.dtype(ml_dtypes.bfloat16), "fp16": np.dtype(np.float16)}
CAST, SAME, AS_MUCH = 0.02, 0.02, 1.05
"""Stored bytes at most: of the file for a cast and equal weights, of the fine-tune alone."""


def cost(first: Weights, second: Weights, *, in_head: bool = False) -> float:
    """Return the share of its bytes that ``second`` stores after ``first``."""
    with tempfile.TemporaryDirectory() as folder, Index(Path(folder)) as index:
        storage = StorageContext(ObjectStore(Path(folder)), index)
        parent = clean(MemorySource(save(dict(first))), "m.safetensors", storage).manifest
        before, data = _stored(storage), save(dict(second))
        clean(MemorySource(data), "n.safetensors", storage, [parent] if in_head else [])
        return (_stored(storage) - before) / len(data)


def _stored(storage: StorageContext) -> int:
    return sum(storage.store.size(oid) or 0 for oid in storage.store.oids())


def renamed(weights: Weights) -> Weights:
    """Return the weights as a wrapped model calls them."""
    return {f"model.{name}": values for name, values in weights.items()}


def transposed(weights: Weights) -> Weights:
    """Return the weights as a framework has them whose kernels are (in, out)."""
    return {name: np.ascontiguousarray(values.T) for name, values in weights.items()}


def cast(weights: Weights, dtype: np.dtype[Any]) -> Weights:
    """Return the floats in another precision."""
    return {
        name: values.astype(dtype) if values.dtype == np.float32 else values
        for name, values in weights.items()
    }


def pruned(weights: Weights) -> Weights:
    """Return the weights with the smaller half of each tensor set to zero."""
    return {
        name: np.where(abs(values) < np.median(abs(values)), 0, values).astype(values.dtype)
        for name, values in weights.items()
    }


def figures(base: Weights, tuned: Weights) -> Iterator[tuple[str, float, float | None]]:
    """Yield what was measured, and how much it may be at most."""
    alone = cost(base, tuned, in_head=True)
    yield "fine-tune, under its own names", alone, None
    yield "the same, renamed", cost(base, renamed(tuned)), AS_MUCH * alone
    small, small_tuned = ({n: v for n, v in w.items() if n != _LARGE} for w in (base, tuned))
    least = cost(small, small_tuned, in_head=True)
    yield "without the word embedding", least, None
    yield "the same, transposed", cost(small, transposed(small_tuned)), AS_MUCH * least
    yield "the base, transposed", cost(small, transposed(small)), SAME
    for name, dtype in _DTYPES.items():
        yield f"the base in {name}", cost(base, renamed(cast(base, dtype))), CAST
        yield f"the fine-tune in {name}, of the fp32 base", cost(base, cast(tuned, dtype)), None
    yield "half of the base set to zero", cost(base, pruned(base), in_head=True), None


def main(arguments: list[str]) -> None:
    """Measure, print the table, fail where a target is missed."""
    argparse.ArgumentParser(prog="scripts/pipeline --bases", description=__doc__).parse_args(
        arguments
    )
    fine_tunes = FineTunes(_STEPS)
    found = list(figures(load_file(fine_tunes.base), load_file(fine_tunes.dense().file)))
    rows = [
        [what, f"at most {most:.3f}" if most else "-", f"{share:.4f}"]
        for what, share, most in found
    ]
    print(table(["stored, of the file", "target", "measured"], rows))
    if missed := [what for what, share, most in found if most and share > most]:
        sys.exit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
