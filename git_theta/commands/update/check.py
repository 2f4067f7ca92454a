"""Tell whether a file is a checkpoint with updates merged into it already."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from git_theta import formats
from git_theta.adapters import Update
from git_theta.checkpoint import chunk_decoder
from git_theta.core.arrays import Bytes
from git_theta.core.hashes import content_hash
from git_theta.core.layout import Source, TensorSpan
from git_theta.core.messages import as_typed
from git_theta.encodings.float_formats import FORMATS, widen
from git_theta.errors import UsageError
from git_theta.manifest import Manifest, TensorEntry
from git_theta.store import ObjectStore

# The norm of what the update does not explain, relative to that of the change itself. Merging in
# another order of operations moves single elements by a rounding step; another base or another
# adapter leaves all of the change unexplained. In between lie bf16 weights that a small change
# moves by a step or not at all.
_SAME_CHANGE = 0.3


def check_is_merged(
    store: ObjectStore, source: Source, path: str, base: Manifest, updates: Mapping[str, Update]
) -> None:
    """Raise ``UsageError`` unless ``source`` is ``base`` with these very updates merged into it."""
    layout, _ = formats.scan(source, path)
    entries = {entry.name: entry for entry in base.tensors}
    strange = [
        span.name
        for span in layout.spans
        if not _is_explained(store, source, span, entries.get(span.name), updates.get(span.name))
    ]
    strange += sorted(entries.keys() - {span.name for span in layout.spans})
    if strange:
        raise UsageError(
            "the file is neither the version in the index nor that with the update merged into "
            f"it; the update does not explain {', '.join(strange[:3])}",
            path=path,
            hint=f"git add {as_typed(path)} stores it as it is, "
            f"git checkout {as_typed(path)} starts again",
        )


def _is_explained(
    store: ObjectStore,
    source: Source,
    span: TensorSpan,
    entry: TensorEntry | None,
    update: Update | None,
) -> bool:
    if entry is None or (entry.dtype, entry.shape) != (span.dtype, span.shape):
        return False
    if update is None:
        return _is_unchanged(source, span, entry)
    before = np.concatenate([chunk_decoder.decode(store, chunk).data for chunk in entry.chunks])
    expected = update.apply(before, span.dtype, span.shape)
    actual = np.frombuffer(source.read(span.start, span.length), np.uint8)
    if update.encoding is None:
        return np.array_equal(expected, actual)
    return _is_same_change(span.dtype, before, expected, actual)


def _is_unchanged(source: Source, span: TensorSpan, entry: TensorEntry) -> bool:
    position = span.start
    for chunk in entry.chunks:
        if content_hash(source.read(position, chunk.length)) != chunk.hash:
            return False
        position += chunk.length
    return True


def _is_same_change(dtype: str, before: Bytes, expected: Bytes, actual: Bytes) -> bool:
    form = FORMATS[dtype]
    old, new, file = (widen(raw.view(form.unsigned), form) for raw in (before, expected, actual))
    return bool(np.linalg.norm(new - file) <= _SAME_CHANGE * np.linalg.norm(new - old))
