"""The hash of a model by its tensors alone, however they lie in a file: statistics name theirs."""

from __future__ import annotations

from git_theta.core.hashes import content_hash
from git_theta.core.settings import Settings
from git_theta.manifest import Manifest, TensorEntry

KEY = "model"
"""The key of the hash in the metadata of a file of statistics."""


def model_hash(model: Manifest) -> str | None:
    """Return the BLAKE3 hash of names, dtypes, shapes and contents of all tensors.

    ``None`` where tensors are in chunks of another size than by default, whose hashes are others.
    """
    size = Settings().chunk_size
    if not all(_is_cut_by(entry, size) for entry in model.tensors):
        return None
    rows = [
        f"{entry.name} {entry.dtype} {list(entry.shape)} {' '.join(c.hash for c in entry.chunks)}"
        for entry in sorted(model.tensors, key=lambda entry: entry.name)
    ]
    return content_hash("\n".join(rows).encode("utf-8", "surrogatepass"))


def _is_cut_by(entry: TensorEntry, size: int) -> bool:
    *whole, last = (chunk.length for chunk in entry.chunks) if entry.chunks else (0,)
    return last <= size and all(length == size for length in whole)
